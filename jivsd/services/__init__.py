"""Clients of the engine that serve by themselves: each a configuration, `run_once`, and `run` around it."""
