"""What every store has to do: the contract of `jivsd.store.api`, parametrised by store."""
