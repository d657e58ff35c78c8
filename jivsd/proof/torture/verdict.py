"""The verdict over a whole torture: every run, and what concerns them together."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from jivsd.proof.torture.checks import check_run
from jivsd.proof.torture.evidence import ENDS
from jivsd.proof.torture.found import Violation
from jivsd.proof.torture.rounds import Told
from jivsd.records import Kind, derived_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jivsd.proof.torture.account import Account
    from jivsd.proof.torture.evidence import Evidence
    from jivsd.proof.torture.plans import Plan


def check_all(evidence: Evidence, account: Account) -> Iterator[Violation]:
    """All that is wrong when everything should have ended."""
    yield from check_runs(evidence, account)
    for run_id in evidence.strangers():
        yield Violation("lost", run_id, "", "there are events of it, and there is no such run")
    known = {run_id for case in account.cases.values() for run_id in _roots(case.plan, case.run_id)}
    for row in evidence.roots():
        if row.run_id not in known:
            yield Violation("unknown", row.run_id, "", "nobody was told that it had been started")
    for row in evidence.open_runs():
        last = (evidence.journal(row.run_id) or [None])[-1]
        where = "" if last is None else f": it stands after {last.kind} {last.path}"
        yield Violation("not ended", row.run_id, "" if last is None else last.path, f"it is {row.status}{where}")
    for run_id, path, message in evidence.incidents():
        yield Violation("incident", run_id or "", path, message)
    for run_id, path in evidence.unsettled():
        yield Violation("progress", run_id, path, "the run has ended, and what it said of its progress is still there")
    yield from _check_locks(evidence)
    yield from _check_sections(evidence)


def _roots(plan: Plan, *origins: str) -> Iterator[str]:
    """A run, and those that it and its children let go."""
    yield origins[-1]
    for before, launched in plan.let_go(*origins):
        yield from _roots(launched.plan, *before, derived_id(before[-1], launched.path))


def check_runs(evidence: Evidence, account: Account) -> Iterator[Violation]:
    """All that is wrong with the runs, also while they live."""
    for case in account.cases.values():
        yield from check_run(evidence, case.run_id, case.plan, Told(case.told, case.answered))
        row = (evidence.rounds(case.run_id) or [evidence.run(case.run_id)])[-1]
        if row is not None and case.ended is not None and row.status is not case.ended:
            message = f"the daemon said that it had ended {case.ended}, and it is {row.status}"
            yield Violation("lost", case.run_id, "", message)


def _check_locks(evidence: Evidence) -> Iterator[Violation]:
    """Of the runs with one lock key, one at a time has it."""
    held: dict[str, list[tuple[int, int, str]]] = {}
    for row in evidence.locked():
        journal = evidence.journal(row.run_id)
        granted = [line.at for line in journal if line.kind == Kind.LOCK_GRANTED]
        ended = [line.at for line in journal if line.kind in ENDS]
        if granted and ended and row.lock_key is not None:
            held.setdefault(row.lock_key, []).append((granted[0], ended[0], row.run_id))
    for key, times in held.items():
        for (_, ended, first), (granted, _, second) in pairwise(sorted(times)):
            if granted < ended:
                yield Violation("lock", second, "", f"it had lock {key!r} while run {first} had it")


def _check_sections(evidence: Evidence) -> Iterator[Violation]:
    """Nobody comes into a part under a lock before who is in it has left it, or has ended without leaving it."""
    inside: dict[str, tuple[str, str]] = {}
    passed: dict[tuple[str, str], tuple[str, str]] = {}
    for run_id, entered in evidence.sections():
        what, key, name = entered.split("-")
        who = run_id, name
        if what == "enter":
            if (before := inside.get(key)) is not None:
                passed[before] = who
                if not _ended_before(evidence, before[0], run_id, entered):
                    yield _together(key, before, who)
            inside[key] = who
        elif who in passed:
            yield _together(key, who, passed.pop(who))
        elif inside.get(key) == who:
            del inside[key]


def _together(key: str, first: tuple[str, str], second: tuple[str, str]) -> Violation:
    return Violation("lock", *second, f"it came under lock {key} while {first[1]} of run {first[0]} was")


def _ended_before(evidence: Evidence, first: str, second: str, entered: str) -> bool:
    """Whether a run had ended when another came under its lock."""
    ends = [line.at for line in evidence.journal(first) if line.kind in ENDS]
    came = [line.at for line in evidence.journal(second) if line.path.rpartition("/")[2] == entered]
    return bool(ends) and ends[0] <= came[-1]
