"""A live run's incidents: found after each turn, opened, closed when they have gone, decided by a person."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from jivsd import logs
from jivsd.authoring import commands
from jivsd.authoring.secrets import Veil, mask_of
from jivsd.engine import beginnings, effects, incidents
from jivsd.engine.attempts import Exit
from jivsd.engine.replay import Phase
from jivsd.engine.replay.parts import LOCK, START
from jivsd.records import ENDED, AttemptFailed, ErrorRecord, Incident, Kind, Status, StepDone
from jivsd.store.api import Entry, RunChange

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jivsd.engine.actor import Actor
    from jivsd.store.api import Verdict

log = logs.get(__name__)

_RUNNING: Final = Phase.RUNNING

Told = Callable[["Verdict"], None]
"""What is told the verdict of the journal on what a person has decided."""


def remember(actor: Actor, known: Iterable[Incident]) -> None:
    """Take over the incidents that an earlier life of the run has opened."""
    actor.incidents = {incidents.place(incident): incident for incident in known}


async def forget_old_letters(actor: Actor) -> None:
    """A replay finds every dead letter again; only one whose incident was not recorded is news."""
    found, actor.machine.misfits = actor.machine.misfits, ()
    for message_id, why in found:
        if not await actor.services.knows_letter(actor.run, message_id):
            actor.machine.misfits += ((message_id, why),)


def status_of(actor: Actor) -> Status:
    """The status of a run that has not ended: what it does, or what holds it."""
    machine = actor.machine
    if machine.phase is _RUNNING and not actor.incidents and machine.blocked is None:
        return Status.PENDING if LOCK in machine.open or START in machine.open else Status.RUNNING
    held = bool(actor.incidents) and any(path in machine.open and machine.open[path].held for path in actor.incidents)
    if machine.phase is Phase.COMPENSATING:
        return Status.COMPENSATION_BLOCKED if held or machine.blocked else Status.COMPENSATING
    if held or machine.blocked is not None:
        return Status.BLOCKED
    return Status.PENDING if LOCK in machine.open or START in machine.open else Status.RUNNING


def sync_status(actor: Actor) -> None:
    """Write the run's status when it has changed; never per step."""
    run, status = actor.run, status_of(actor)
    if status is run.status or run.status in ENDED:
        return
    if run.status is not Status.WAITING or status is not Status.RUNNING:
        started_at = actor.at if run.started_at is None and status is Status.RUNNING else None
        wake_at = beginnings.since(actor) if START in actor.machine.open else None
        actor.submit(Entry(**actor.address(), change=RunChange(status, started_at=started_at, wake_at=wake_at)))
        run.status, run.wake_at = status, wake_at
        run.started_at = run.started_at or started_at


def forget_gone(actor: Actor) -> None:
    """Close what the life that begins now is free of: threads of an earlier one, what held the run as a whole."""
    blocked = actor.machine.blocked
    for incident in list(actor.incidents.values()):
        still = incident.path != "" or (blocked is not None and blocked.kind == incident.kind)
        if incident.kind in incidents.WARNINGS or not still:
            close(actor, incident, "gone")


def find(actor: Actor) -> None:
    """Open the incidents that a turn has led to."""
    machine, now = actor.machine, actor.services.clock.now()
    if machine.misfits:
        actor.services.metrics.inbox_dead_lettered.inc(len(machine.misfits))
        for message_id, why in machine.misfits:
            report(actor, incidents.misfit(actor.run, message_id, why, now))
        machine.misfits = ()
    if machine.blocked is not None and "" not in actor.incidents:
        open_(actor, incidents.blocked(actor.run, machine.blocked, now))


def find_held(actor: Actor, path: str) -> None:
    """Open the incident of a step that has used up its retries, if it has."""
    entry = actor.machine.open.get(path)
    if entry is not None and entry.held and path not in actor.incidents:
        open_(actor, incidents.held(actor.run, entry, actor.services.clock.now(), actor.machine.phase))


def attempt_ended(actor: Actor, path: str) -> None:
    """Close what warned of an attempt that would not end."""
    for kind in ("thread", "stuck"):
        if (incident := actor.incidents.get(f"{kind} {path}")) is not None:
            close(actor, incident, "gone")


def open_(actor: Actor, incident: Incident) -> None:
    """Open an incident that holds something of the run."""
    incident = _veiled(actor, incident)
    actor.incidents[incidents.place(incident)] = incident
    actor.services.troubled.add(actor.run.run_id)
    report(actor, incident)


def report(actor: Actor, incident: Incident) -> None:
    """Write an incident."""
    incident = _veiled(actor, incident)
    log.error("incident", incident=incident.incident_id, what=incident.message, path=incident.path, **actor.words())
    actor.submit(Entry(**actor.address(), incidents=(incident,)))


def _veiled(actor: Actor, incident: Incident) -> Incident:
    """An incident without what is secret in the run's input: it goes into the log too."""
    mask = mask_of(actor.workflow.signature.input_kind)
    if mask is None:
        return incident
    veil = Veil(mask.secrets(msgspec.json.decode(actor.run.input)))
    details = veil.value(incident.details)
    return msgspec.structs.replace(incident, message=veil.text(incident.message), details=details)


def close(actor: Actor, incident: Incident, resolution: str) -> None:
    """Record that an incident has gone by itself."""
    actor.incidents.pop(incidents.place(incident), None)
    closed = incidents.resolved(incident, resolution, by="", why="", at=actor.services.clock.now())
    actor.submit(Entry(**actor.address(), incidents=(closed,)))


def closed_by_the_end(actor: Actor) -> list[Incident]:
    """The open incidents, as they stand once the run has ended."""
    now = actor.services.clock.now()
    return [incidents.resolved(one, "ended", by="", why="", at=now) for one in actor.incidents.values()]


def retry(actor: Actor, closed: Incident, then: Told) -> bool:
    """Try again what an incident holds. False if it holds nothing any more."""
    if not _holds(actor, closed):
        return False
    entry = actor.machine.open.get(closed.path)
    if closed.kind == "stuck":
        attempt = actor.attempts.get(closed.path)
        if attempt is None or not attempt.interrupt(f"stopped by {closed.resolved_by or 'somebody'}"):
            return False
        actor.submit(Entry(**actor.address(), incidents=(closed,)), None, then)
    elif closed.path == "":
        actor.submit(Entry(**actor.address(), incidents=(closed,)), None, then)
        actor.ask(Exit.RESTART)
    elif entry is not None and entry.held:
        again = ErrorRecord("Retried", closed.resolved_why or "")
        payload = AttemptFailed(entry.command.args_hash, again, actor.services.clock.now())
        by = closed.resolved_by or ""
        actor.active.add(entry.path)  # until that is delivered a cancellation settles nothing
        actor.append(Kind.ATTEMPT_FAILED, entry.path, payload, by=by, incidents=(closed,), then=then)
    else:
        return False
    del actor.incidents[incidents.place(closed)]
    return True


def resolve(actor: Actor, closed: Incident, value: bytes, then: Told) -> bool:
    """Take a person's value for the result of a step that an incident holds. False if it is not held any more.

    Raises:
        Invalid: the value does not fit the step's result type, or there has to be one.
    """
    entry = actor.machine.open.get(closed.path)
    if entry is None or not entry.held or not _holds(actor, closed):
        return False
    assert isinstance(entry.command, commands.StepCall)
    skipped = closed.resolution == "skip"
    effects.check_result(entry.command, value, skipped=skipped)
    payload = StepDone(entry.command.args_hash, msgspec.Raw(value), closed.resolved_why or "", skipped)
    by = closed.resolved_by or ""
    actor.active.add(entry.path)
    actor.append(Kind.STEP_DONE, entry.path, payload, by=by, incidents=(closed,), then=then)
    del actor.incidents[closed.path]
    return True


def dismiss(actor: Actor, closed: Incident, then: Told) -> bool:
    """A person has seen an incident that holds nothing."""
    actor.incidents.pop(incidents.place(closed), None)
    actor.submit(Entry(**actor.address(), incidents=(closed,)), None, then)
    return True


def note(actor: Actor, incident: Incident, then: Told) -> bool:
    """Write what somebody has said about an incident that stays open. False if it does not, or has changed."""
    if not _holds(actor, incident):
        return False
    actor.incidents[incidents.place(incident)] = incident
    actor.submit(Entry(**actor.address(), incidents=(incident,)), None, then)
    return True


def _holds(actor: Actor, closed: Incident) -> bool:
    known = actor.incidents.get(incidents.place(closed))
    same = known is not None and known.incident_id == closed.incident_id
    return same and actor.final is None and not actor.leaving
