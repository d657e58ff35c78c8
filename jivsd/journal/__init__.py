"""The journal: group commit over a store."""

from jivsd.journal.committer import Committer

__all__ = ["Committer"]
