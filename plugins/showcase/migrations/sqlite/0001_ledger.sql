-- Nothing in this table keeps doubles out: if a transaction step were ever recorded twice, they could be counted.
CREATE TABLE showcase_ledger (
    entry INTEGER NOT NULL PRIMARY KEY,
    run_id TEXT NOT NULL,
    what TEXT NOT NULL,
    item TEXT NOT NULL,
    amount INTEGER NOT NULL
) STRICT;
