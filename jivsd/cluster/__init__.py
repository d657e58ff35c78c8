"""Who may do what: business locks (and, with several nodes, shards and leases)."""
