"""Compares what the databases say about a run with what the model foresaw."""

from __future__ import annotations

from collections import Counter
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jivsd.proof.torture import outward, rounds
from jivsd.proof.torture.evidence import ENDS, ONCE, OUTCOMES
from jivsd.proof.torture.found import Found, Violation
from jivsd.proof.torture.language import Result
from jivsd.proof.torture.undoing import UNDO, check_order, check_undo
from jivsd.records import ENDED, Kind, Status, derived_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jivsd.proof.torture.evidence import Evidence, Life, Line
    from jivsd.proof.torture.plans import Fate, Plan
    from jivsd.proof.torture.rounds import Told


CUT: Final = (Status.CANCELLED, Status.TERMINATED)
"""How the child runs end of a run that was cut short."""


def check_run(evidence: Evidence, run_id: str, plan: Plan, told: Told, *, cut: bool = False) -> Iterator[Violation]:
    """All that is wrong with one run, with those in which it goes on as new, and with their child runs.

    `cut`: its parent was cut short, so it may have been.
    """
    lives = evidence.chain(run_id)
    if not lives:
        yield Violation("lost", run_id, "", "its start was acknowledged, and there is no such run")
        return
    for one in rounds.check(evidence, lives, plan, told, loose=is_loose(lives[-1], plan, cut=cut)):
        yield Violation(one.kind, run_id, one.path, one.message)
    for life, its in zip(lives, plan.chain, strict=False):
        yield from _check_one(evidence, life, its, told, cut=cut)


def _check_one(evidence: Evidence, life: Life, plan: Plan, told: Told, *, cut: bool) -> Iterator[Violation]:
    run_id = life.row.run_id
    found = _check_always(life)
    if life.row.status in ENDED:
        found = chain(found, _check_ended(evidence, life, plan, cut=cut))
    for one in found:
        yield Violation(one.kind, run_id, one.path, one.message)
    loose = is_loose(life, plan, cut=cut)
    for child in life.children:
        fate = plan.fates.get(child.parent_path or "")
        if fate is None or fate.plan is None:
            yield Violation("unknown", run_id, child.parent_path or "", f"the model knows no child run {child.run_id}")
        else:
            yield from check_run(evidence, child.run_id, fate.plan, told, cut=loose or not fate.sure)
    for launched in plan.launched:
        launched_id = derived_id(run_id, launched.path)
        if life.of(launched.path, Kind.MARKER) or evidence.run(launched_id) is not None:
            yield from check_run(evidence, launched_id, launched.plan, told)


def is_loose(life: Life, plan: Plan, *, cut: bool) -> bool:
    """Whether the run was cut short at a moment that the model does not know."""
    status = life.row.status
    return (plan.otherwise is not None and status is plan.otherwise) or (cut and status in CUT)


def _check_always(life: Life) -> Iterator[Found]:
    """What must hold at every moment."""
    yield from _check_journal(life)
    yield from _check_calls(life)
    yield from outward.check_always(life)


def _check_ended(evidence: Evidence, life: Life, plan: Plan, *, cut: bool) -> Iterator[Found]:
    """What must hold at the end."""
    loose = is_loose(life, plan, cut=cut)
    yield from _check_settled(life)
    yield from _check_end(life, plan, loose=loose)
    yield from _check_names(life, plan)
    for fate in plan.fates.values():
        yield from _check_fate(evidence, life, fate, loose=loose)
        yield from check_undo(life, fate, loose=loose)
    yield from _check_ledger(life, plan)
    yield from outward.check_ended(life, plan, loose=loose)
    if not loose:
        for group in plan.groups:
            yield from check_order(life, group)


def _check_journal(life: Life) -> Iterator[Found]:
    """Whole and in order, and nothing is recorded twice."""
    for place, line in enumerate(life.journal, 1):
        if line.seq != place:
            yield Found("lost", "", f"event {place} is missing before event {line.seq} ({line.kind} {line.path})")
            break
    for earlier, later in pairwise(life.journal):
        if later.at < earlier.at:
            yield Found("order", later.path, f"event {later.seq} is dated before event {earlier.seq}")
    once = Counter(line.path for line in life.journal if line.kind in OUTCOMES)
    once += Counter((line.path, line.kind) for line in life.journal if line.kind in ONCE - OUTCOMES)
    for key, count in once.items():
        if count > 1:
            path = key if isinstance(key, str) else key[0]
            yield Found("twice", path, f"it was recorded {count} times: {_shown(life, path)}")


def _shown(life: Life, path: str) -> str:
    return ", ".join(f"{line.kind} (event {line.seq})" for line in life.journal if line.path == path)


def _check_calls(life: Life) -> Iterator[Found]:
    """Nothing is carried out after it was recorded; every attempt of a step has the same key and arguments."""
    settled = {line.path: line for line in reversed(life.journal) if line.kind in OUTCOMES}
    keys: dict[str, str] = {}
    details: dict[str, str] = {}
    for call in life.calls:
        record = settled.get(call.path)
        if record is not None and call.is_late(record.at):
            late = (call.at - record.at) / 1000
            yield Found(
                "after record",
                call.path,
                f"attempt {call.attempt} was carried out {late:.1f} ms after {record.kind} (event {record.seq})",
            )
        if keys.setdefault(call.path, call.key) != call.key:
            yield Found("key", call.path, "its attempts had two idempotency keys")
        if details.setdefault(call.path, call.detail) != call.detail:
            yield Found("replay", call.path, f"its attempts were told {details[call.path]!r} and {call.detail!r}")
    if len(set(keys.values())) != len(keys):
        yield Found("key", "", "two steps have the same idempotency key")


def _check_settled(life: Life) -> Iterator[Found]:
    """The run ended once, and nothing of it is left open or goes on."""
    ends = [line for line in life.journal if line.kind in ENDS]
    if len(ends) != 1 or life.journal[-1] is not ends[0]:
        yield Found("end", "", f"its journal has {len(ends)} ends, and ends with {life.journal[-1].kind}")
        return
    ended = Status.CONTINUED if ends[0].kind == Kind.CONTINUED_AS_NEW else ends[0].payload["status"]
    if ended != life.row.status:
        yield Found("end", "", f"its journal ends {ended}, its row {life.row.status}")
    terminated = life.row.status is Status.TERMINATED
    recorded = {(line.path, line.attempt) for line in life.journal if line.kind == Kind.ATTEMPT_FAILED}
    settled = {line.path for line in life.journal if line.kind in OUTCOMES}
    for call in life.calls:
        if call.at > ends[0].at:
            if call.is_late(ends[0].at):
                yield Found("after record", call.path, f"attempt {call.attempt} was carried out after the run's end")
        elif call.path not in settled and (call.path, call.attempt) not in recorded and not terminated:
            yield Found("lost", call.path, "it was carried out, and nothing records what became of it")


def _check_end(life: Life, plan: Plan, *, loose: bool) -> Iterator[Found]:
    status = life.row.status
    expected = plan.status
    if expected is Status.COMPENSATED and not any(_undoes(line) for line in life.journal):
        expected = Status.FAILED
    if not loose and status is not expected:
        why = f" ({life.row.error.type}: {life.row.error.message})" if life.row.error else ""
        yield Found("model", "", f"it ended {status}{why}; the model says {expected}")
    elif status is Status.COMPLETED:
        result = msgspec.json.decode(life.row.output or "null", type=Result)
        if result.counter != plan.counter:
            yield Found("counter", "", f"its counter is {result.counter}; the model says {plan.counter}")


def _undoes(line: Line) -> bool:
    return line.kind == Kind.STEP_DONE and line.path.endswith(UNDO)


def _check_names(life: Life, plan: Plan) -> Iterator[Found]:
    """Nothing was carried out or recorded that the model does not know."""
    undone = {f"{fate.path}{UNDO}" for fate in plan.fates.values() if fate.undo}
    known = undone | plan.fates.keys()
    for path in dict.fromkeys(call.path for call in life.calls):
        if path not in known:
            yield Found("unknown", path, "it was carried out; the model says that it is never reached")
    for line in life.journal:
        if line.kind in OUTCOMES and line.path not in known:
            yield Found("unknown", line.path, f"{line.kind} is recorded; the model says that it is never reached")


def _check_fate(evidence: Evidence, life: Life, fate: Fate, *, loose: bool) -> Iterator[Found]:
    line = life.outcome(fate.path)
    sure = fate.sure and not loose
    if line is None:
        if sure:
            yield Found("lost", fate.path, f"no outcome is recorded; the model says {' or '.join(fate.outcomes)}")
        return
    allowed = fate.outcomes
    if not sure:  # cancelled in its last attempt, a step fails that an incident would have held
        allowed |= {Kind.STEP_CANCELLED, Kind.STEP_FAILED} if fate.matter == "stuck" else {Kind.STEP_CANCELLED}
    if line.kind not in allowed:
        yield Found("model", fate.path, f"{line.kind} is recorded; the model says {' or '.join(sorted(allowed))}")
    called = {call.attempt for call in life.calls if call.path == fate.path}
    noted = fate.matter not in ("ledger", "child")
    if noted and line.kind == Kind.STEP_DONE and not called:
        yield Found("never done", fate.path, "its success is recorded, and it was never carried out")
    if line.kind == Kind.STEP_DONE and fate.matter in ("work", "ledger", "stuck"):
        result: Any = line.payload["result"]
        if result != fate.amount:
            yield Found("model", fate.path, f"its recorded result is {result}; the model says {fate.amount}")
    if fate.matter == "child":
        yield from _check_child(evidence, life, fate, line)
    elif fate.failures is not None:
        yield from _check_failures(life, fate, called if noted else None, exact=sure and line.kind in fate.outcomes)


def _check_child(evidence: Evidence, life: Life, fate: Fate, line: Line) -> Iterator[Found]:
    children = [child for child in life.children if child.parent_path == fate.path]
    if len(children) > 1:
        yield Found("twice", fate.path, f"it has started {len(children)} child runs")
    for child in children:
        last = (evidence.rounds(child.run_id) or [child])[-1]
        if last.status != (ended := line.payload["status"]):
            yield Found("model", fate.path, f"child run {last.run_id} is {last.status}, its parent heard {ended}")
    if not children and line.payload["status"] != Status.CANCELLED:  # cancelled before it began, there is none
        yield Found("lost", fate.path, "its end is recorded, and there is no such child run")


def _check_failures(life: Life, fate: Fate, called: set[int] | None, *, exact: bool) -> Iterator[Found]:
    """As many failed attempts are recorded as the model says, and each was carried out."""
    failed = [line.attempt for line in life.of(fate.path, Kind.ATTEMPT_FAILED)]
    if failed != list(range(1, len(failed) + 1)):
        yield Found("order", fate.path, f"its failed attempts are numbered {failed}")
    if exact and len(failed) != fate.failures:
        yield Found("model", fate.path, f"{len(failed)} failed attempts are recorded; the model says {fate.failures}")
    if called is not None and not called.issuperset(failed):
        yield Found("never done", fate.path, f"of its failed attempts {failed} only {sorted(called)} were carried out")


def _check_ledger(life: Life, plan: Plan) -> Iterator[Found]:
    """Transaction steps have left exactly the rows of those that are recorded as done, and the counter counts them."""
    expected: Counter[tuple[str, int]] = Counter()
    for fate in plan.fates.values():
        if fate.matter == "ledger":
            for path, name, amount in (
                (fate.path, fate.name, fate.amount),
                (fate.path + UNDO, fate.name + UNDO, -fate.amount),
            ):
                outcome = life.outcome(path)
                expected[name, amount] = int(outcome is not None and outcome.kind == Kind.STEP_DONE)
    found = Counter((entry.name, entry.amount) for entry in life.ledger)
    places = {fate.name: fate.path for fate in plan.fates.values()}
    for name, amount in {**expected, **found}:
        if found[name, amount] != expected[name, amount]:
            path = places.get(name.removesuffix(UNDO), name) + (UNDO if name.endswith(UNDO) else "")
            has, should = found[name, amount], expected[name, amount]
            yield Found("ledger", path, f"the ledger has {has} rows of it; its record in the journal says {should}")
    counted = sum(expected.values()), sum(amount * count for (_, amount), count in expected.items())
    if life.counted != counted:
        yield Found("counter", "", f"its ledger counter is {life.counted}; the model says {counted}")
