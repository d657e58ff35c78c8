"""The store in PostgreSQL: one connection that writes batches, others beside it."""

from jivsd.store.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
