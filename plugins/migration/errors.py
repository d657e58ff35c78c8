"""The errors of migrations: those that trying again cannot mend, and the one that it may."""

from __future__ import annotations

from jivsd import Failure


class MigrationError(Failure):
    """The migration cannot go on as it was asked for; the message says what is wrong, where, and what would be right.

    It is final: the steps' retry policy gives up on it at once.
    """


class PlanRefused(MigrationError):
    """The plan has problems; `data["problems"]` lists them, one sentence each."""


class Fenced(MigrationError):
    """Another run has claimed the target since: whatever this attempt wanted to write was not written."""


class Finished(Fenced):
    """The target has no fence any more: it was finished, or is another database by now."""


class NotEqual(MigrationError):
    """Verification found that source and target differ; `data["differences"]` lists how, one sentence each."""


class Unavailable(Failure):
    """A database is locked, its disk is full or failing: worth another attempt."""


def refuse(problems: list[str]) -> PlanRefused:
    """The error for a plan with problems; its message has them all."""
    return PlanRefused("this migration cannot be done: " + "; ".join(problems), problems=problems)


def leaf(error: Exception) -> Exception:
    """What went wrong first inside the groups that nurseries raise."""
    causes: tuple[Exception, ...] = getattr(error, "exceptions", ())
    return leaf(causes[0]) if causes else error
