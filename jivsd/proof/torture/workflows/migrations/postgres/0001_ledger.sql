-- Nothing in the ledger keeps doubles out: if a transaction step were ever recorded twice, they could be counted.
CREATE TABLE torture_ledger (
    entry bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    run_id text NOT NULL,
    name text NOT NULL,
    amount bigint NOT NULL
);
CREATE INDEX torture_ledger_run ON torture_ledger (run_id);

CREATE TABLE torture_counter (
    run_id text PRIMARY KEY,
    entries bigint NOT NULL,
    sum bigint NOT NULL
);
