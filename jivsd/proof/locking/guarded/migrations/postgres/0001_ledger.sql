-- Who enters and leaves, in the order in which it was written. Nothing in it keeps doubles out.
CREATE TABLE lock_ledger (
    entry bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    run_id text NOT NULL,
    key text NOT NULL,
    what text NOT NULL,
    fence bigint NOT NULL
);
