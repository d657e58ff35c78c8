-- Nothing in this table keeps doubles out: if a transaction step were ever recorded twice, they could be counted.
CREATE TABLE showcase_ledger (
    entry bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    run_id text NOT NULL,
    what text NOT NULL,
    item text NOT NULL,
    amount bigint NOT NULL
);
