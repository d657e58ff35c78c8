"""Life of runs: admission, actors, replay, compensation, recovery."""
