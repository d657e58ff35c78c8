"""Who may do what: business locks; and, with several nodes, shards, their leases, and how nodes call each other."""
