"""What a store says when it cannot do what was asked."""

from __future__ import annotations


class StoreError(Exception):
    """The store cannot do what was asked; the message says why and what would help."""


class StoreAway(StoreError):
    """The store cannot be written to just now (full, read-only, unreachable): nothing of the batch was written.

    The committer keeps its entries and tries again.
    """


class OutcomeUnknown(StoreError):
    """The commit may or may not have happened. Raise the epoch of the shards, then re-read, before deciding."""


class TransactionError(StoreError):
    """A transaction step did what it may not do, or took too long; all that it wrote was rolled back."""


class TransactionLate(TransactionError):
    """A transaction step took longer than it may. `seconds`: how long that is."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the transaction step took longer than {seconds:g} s: nothing was written")
        self.seconds = seconds


class BadCursor(StoreError):
    """A cursor that no page came with."""


class DamagedRow(StoreError):
    """A row whose checksum does not match its content."""

    def __init__(self, run_id: str, seq: int, what: str = "its checksum does not match its content") -> None:
        super().__init__(f"event {seq} of run {run_id} is damaged: {what}")
        self.run_id = run_id
        self.seq = seq
