"""Proves that nobody who reaches the HTTP endpoint can harm the daemon, its other callers or its runs.

    python -m jivsd.proof.hostile [--seconds 120] [--connections 10000] [--seed 1] [--store postgresql] [--json]

A real daemon with tokens does steady work while it is attacked, by one kind of attack after the other and then by all
together: by those who hold connections (`sieges`), and by those who send what makes no sense or should be refused
(`shots`). What was found goes by fixed bounds; the exit code is 0 only if all of them hold.
"""
