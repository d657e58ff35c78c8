-- Nothing in the ledger keeps doubles out: if a transaction step were ever recorded twice, they could be counted.
CREATE TABLE torture_ledger (
    entry INTEGER NOT NULL PRIMARY KEY,
    run_id TEXT NOT NULL,
    name TEXT NOT NULL,
    amount INTEGER NOT NULL
) STRICT;
CREATE INDEX torture_ledger_run ON torture_ledger (run_id);

CREATE TABLE torture_counter (
    run_id TEXT NOT NULL PRIMARY KEY,
    entries INTEGER NOT NULL,
    sum INTEGER NOT NULL
) STRICT;
