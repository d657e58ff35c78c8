"""Masks what is secret before anybody sees it: the routes show runs, events and incidents through this.

What the types of a workflow mark is masked where it stands; texts that are secret in a run's input, messages and steps'
results are masked in everything else of that run too, in error messages above all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from jivsd.engine.api import Why
from jivsd.masking import HIDDEN
from jivsd.records import ErrorRecord, Event, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.authoring.secrets import Mask, Veil
    from jivsd.engine.engine import Engine
    from jivsd.records import Incident, IncidentGroup, Progress, Run
    from jivsd.registry.secrets import Secrets

_MARKED: Final = "Secret"
"""What the source of a plugin has that marks anything."""
_ALL: Final = msgspec.Raw(msgspec.json.encode(HIDDEN))


class Masks:
    """The masks of an engine's runs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._plain: set[str] = set()
        """Versions of plugins that are not loaded and mark nothing."""

    async def run(self, run: Run) -> Run:
        """A run as people may see it."""
        secrets = await self._secrets(run)
        if secrets is None:
            return run
        if secrets is _UNKNOWN:
            output = None if run.output is None else _ALL
            error = None if run.error is None else ErrorRecord(run.error.type, HIDDEN)
            return replace(run, input=_ALL, output=output, error=error)
        veil = await self._veil(run, secrets)
        return replace(
            run,
            input=_hidden(secrets.input, run.input, veil),
            output=None if run.output is None else _hidden(secrets.output, run.output, veil),
            error=None if run.error is None else _error(run.error, veil),
            attributes=veil.value(run.attributes),
        )

    async def progress(self, run: Run, progress: list[Progress]) -> list[Progress]:
        """What steps of a run say of how far they are."""
        secrets = await self._secrets(run) if progress else None
        if secrets is None:
            return progress
        if secrets is _UNKNOWN:
            return []
        veil = await self._veil(run, secrets)
        return [replace(one, details=_hidden(None, one.details, veil)) for one in progress]

    async def runs(self, runs: Sequence[Run]) -> list[Run]:
        """A list of runs, which shows of each no more than its error and attributes."""
        return [await self.run(run) if run.error is not None or run.attributes else run for run in runs]

    async def events(self, run_id: str, events: Sequence[Event]) -> list[Event]:
        """Some events of a run."""
        run = await self._engine.store.run(run_id)
        secrets = None if run is None else await self._secrets(run)
        if run is None or secrets is None:
            return [await self._of_child(event) for event in events]
        if secrets is _UNKNOWN:
            return [replace(event, payload=bytes(_ALL)) for event in events]
        veil = await self._veil(run, secrets)
        shown = [replace(event, payload=secrets.shown(event, veil)) for event in events]
        return [await self._of_child(event) for event in shown]

    async def answer(self, ref: str, kind: str, name: str, value: msgspec.Raw) -> msgspec.Raw:
        """The answer to a "query" or an "update" of a run."""
        run = await self._engine.show(ref)
        secrets = await self._secrets(run)
        if secrets is None:
            return value
        if secrets is _UNKNOWN:
            return _ALL
        mask = secrets.query(name) if kind == "query" else secrets.answer(name)
        return _hidden(mask, value, await self._veil(run, secrets))

    async def incident(self, incident: Incident) -> Incident:
        """An incident as people may see it."""
        if incident.kind == "request" and "payload" in incident.details:
            newest = self._engine.code.workflow(incident.workflow or "")
            if newest is not None and self._engine.code.secrets(newest.name, newest.code_hash):
                return replace(incident, details={**incident.details, "payload": HIDDEN})
        run = None if incident.run_id is None else await self._engine.store.run(incident.run_id)
        secrets = None if run is None else await self._secrets(run)
        if run is None or secrets is None:
            return incident
        if secrets is _UNKNOWN:
            return replace(incident, message=HIDDEN, details={})
        veil = await self._veil(run, secrets)
        return replace(incident, message=veil.text(incident.message), details=veil.value(incident.details))

    async def group(self, group: IncidentGroup) -> IncidentGroup:
        """A group of incidents, of which it says what the newest says."""
        newest = await self.incident(await self._engine.incident(group.incident_id))
        return replace(group, message=newest.message)

    async def why(self, why: Why) -> Why:
        """What a run waits for."""
        secrets = await self._secrets(why.run)
        if secrets is None:
            return why
        if secrets is _UNKNOWN:
            waits = [replace(wait, error=wait.error and HIDDEN) for wait in why.waits]
        else:
            veil = await self._veil(why.run, secrets)
            shown = [(wait, wait.error and veil.text(wait.error), veil.text(wait.what)) for wait in why.waits]
            waits = [replace(wait, error=error, what=what) for wait, error, what in shown]
        return Why(await self.run(why.run), waits)

    async def _of_child(self, event: Event) -> Event:
        """An event that says how a child ended, whose result is as secret as the child says."""
        if event.kind != Kind.CHILD_ENDED:
            return event
        payload = msgspec.json.decode(event.payload)
        child = await self._engine.store.run(payload["run_id"])
        if child is None or (secrets := await self._secrets(child)) is None:
            return event
        if secrets is _UNKNOWN:
            return replace(event, payload=bytes(_ALL))
        veil = await self._veil(child, secrets)
        if secrets.output is not None and "output" in payload:
            payload["output"] = secrets.output.hide(payload["output"])
        return replace(event, payload=msgspec.json.encode(veil.value(payload)))

    async def _secrets(self, run: Run) -> Secrets | None:
        """What is secret of a run; None: nothing. If its code cannot be loaded and marks anything: all of it."""
        code = self._engine.code
        found = code.secrets(run.workflow, run.code_hash)
        if found is None:
            if run.code_hash in self._plain:
                return None
            stored = await self._engine.store.plugin(run.code_hash)
            if stored is None or not any(_MARKED in text for text in stored.files.values()):
                self._plain.add(run.code_hash)
                return None
            await self._engine.code_of(run)
            found = code.secrets(run.workflow, run.code_hash)
            if found is None:
                return _UNKNOWN
        return found or None

    async def _veil(self, run: Run, secrets: Secrets) -> Veil:
        events = await self._engine.store.events(run.run_id) if secrets.beyond_input else ()
        return secrets.veil(bytes(run.input), events)


_UNKNOWN: Final[Any] = object()


def _hidden(mask: Mask | None, value: msgspec.Raw, veil: Veil) -> msgspec.Raw:
    known = msgspec.json.decode(value)
    return msgspec.Raw(msgspec.json.encode(veil.value(known if mask is None else mask.hide(known))))


def _error(error: ErrorRecord, veil: Veil) -> ErrorRecord:
    causes = [_error(cause, veil) for cause in error.causes]
    return replace(error, message=veil.text(error.message), data=veil.value(error.data), causes=causes)
