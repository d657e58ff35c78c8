"""Adoption: open runs are moved to the newest code of their plugin, where that does what theirs has done.

A run is compared without being disturbed (see `comparison`). If the codes agree, it is moved at a moment when all that
its journal says has been delivered and nothing else is on its way: CodeChanged and the row's new code hash are one
entry. Attempts of steps that are under way go on; what they come to is taken by the new code. If need be nothing more
is started for a moment, so that a busy run comes to such a moment.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from jivsd import logs
from jivsd.engine import effects
from jivsd.engine.api import Conflict, Move, Moves, NotFound, Unavailable, Which
from jivsd.engine.attempts import Exit
from jivsd.engine.comparison import Comparison, Difference, Unsettled, retire
from jivsd.engine.incidents import resolved
from jivsd.records import ENDED, CodeChanged, Event, Kind, encode
from jivsd.store.api import DamagedRow, Entry, RunChange, RunFilter, Written

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jivsd.authoring.workflows import Workflow
    from jivsd.engine.actor import Actor
    from jivsd.engine.host import Host
    from jivsd.engine.looking import Looking
    from jivsd.engine.replay import Machine
    from jivsd.records import Incident, Run
    from jivsd.registry.registry import LoadedPlugin
    from jivsd.store.api import Verdict

log = logs.get(__name__)

AT_ONCE: Final = 16
"""How many runs are compared side by side."""
SCANNED: Final = 10_000
"""Open runs that a page looks at, at most."""
PATIENCE: Final = 5.0
"""Seconds in which a run has to come to a moment when it can be moved."""

GLANCE: Final = 0.02
"""Seconds after which it is looked again whether a run has settled."""


class Adoption:
    """Moves the runs of a host."""

    def __init__(self, host: Host, looking: Looking) -> None:
        self._host = host
        self._looking = looking
        self._owners: dict[str, str] = {}

    async def adopt(
        self, name: str, which: Which, *, dry_run: bool, additions: bool, limit: int, cursor: str | None, by: str
    ) -> Moves:
        """See `Engine.adopt_code`."""
        plugin = self._plugin(name)
        runs, following = await self._candidates(plugin, which, limit, cursor)
        moves: dict[str, Move] = {}
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def move(run: Run) -> None:
            async with limiter:
                if not dry_run and self._host.forwarding.is_elsewhere(run):
                    done = await self._move_elsewhere(run, plugin, additions=additions, by=by)
                else:
                    mover = _Mover(self._host, run, plugin, additions=additions, by=by)
                    done = await (mover.look() if dry_run else mover.move())
                if done is not None:
                    moves[run.run_id] = done

        async with trio.open_nursery() as nursery:
            for run in runs:
                nursery.start_soon(move, run)
        items = [moves[run.run_id] for run in runs if run.run_id in moves]
        if not dry_run and items:
            states = [item.state for item in items]
            counts = {state: states.count(state) for state in sorted(set(states))}
            log.info("adopted", plugin=name, code_hash=plugin.code_hash, by=by, **counts)
        return Moves(name, plugin.code_hash, items, following)

    async def _move_elsewhere(self, run: Run, plugin: LoadedPlugin, *, additions: bool, by: str) -> Move | None:
        """Have the node move a run on which it lives."""
        asked = {"name": plugin.name, "code_hash": plugin.code_hash, "additions": additions, "by": by}
        try:
            said = await self._host.forwarding.ask(run, "adopt", run_id=run.run_id, **asked)
        except Unavailable:
            return Move(run.run_id, run.workflow, run.workflow_id, run.code_hash, "busy")
        return msgspec.json.decode(said, type=Move | None)

    async def move_here(self, name: str, code_hash: str, run_id: str, *, additions: bool, by: str) -> Move | None:
        """Move a run that lives on this node to the code of a plugin that has this hash."""
        plugin, run = self._plugin(name), await self._looking.show(run_id)
        if plugin.code_hash != code_hash:
            why = f"node {self._host.node}, where the run lives, has loaded other code: reload the plugins there"
            expected, found = f"code {code_hash}", f"code {plugin.code_hash}"
            return Move(run.run_id, run.workflow, run.workflow_id, run.code_hash, "stays", "", expected, found, why)
        return await _Mover(self._host, run, plugin, additions=additions, by=by).move()

    def _plugin(self, name: str) -> LoadedPlugin:
        for plugin in self._host.code.plugins:
            if plugin.name == name:
                return plugin
        known = ", ".join(sorted(plugin.name for plugin in self._host.code.plugins)) or "none"
        raise NotFound(f"there is no plugin {name!r} that new runs use; there are: {known}", plugin=name)

    async def _candidates(
        self, plugin: LoadedPlugin, which: Which, limit: int, cursor: str | None
    ) -> tuple[list[Run], str | None]:
        """The next open runs that are on older code of the plugin, and the cursor behind them."""
        if which.run is not None:
            run = await self._looking.show(which.run)
            if run.status in ENDED:
                raise Conflict(f"run {run.run_id} has ended: {run.status}", code="ended", run_id=run.run_id)
            if not await self._is_older(run, plugin) and run.code_hash != plugin.code_hash:
                raise Conflict(f"run {run.run_id} is not one of plugin {plugin.name!r}", run_id=run.run_id)
            return [run] if run.code_hash != plugin.code_hash and which.includes(run) else [], None
        where = RunFilter(which.workflow, which.id, which.status, open_only=True, parent=which.parent)
        for _ in range(0, SCANNED, limit):
            page = await self._host.store.runs(where, limit, cursor)
            cursor = page.next
            found = [run for run in page.items if await self._is_older(run, plugin)]
            if found or cursor is None:
                return found, cursor
        return [], cursor

    async def _is_older(self, run: Run, plugin: LoadedPlugin) -> bool:
        """Whether a run is on other code than the plugin's: its workflow is there, or was in an earlier version."""
        if run.code_hash == plugin.code_hash:
            return False
        if run.workflow in plugin.workflows:
            return True
        if run.code_hash not in self._owners:
            stored = await self._host.store.plugin(run.code_hash)
            self._owners[run.code_hash] = "" if stored is None else stored.name
        return self._owners[run.code_hash] == plugin.name


class _Mover:
    """Moves one run."""

    def __init__(self, host: Host, run: Run, plugin: LoadedPlugin, *, additions: bool, by: str) -> None:
        self._host = host
        self._run = run
        self._plugin = plugin
        self._additions = additions
        self._by = by

    async def look(self) -> Move | None:
        """Say whether the run could be moved; None: it has ended."""
        return await self._compared(self._fits)

    async def move(self) -> Move | None:
        """Move the run if it can be; None: it has ended."""
        return await self._compared(self._move)

    async def _fits(self, comparison: Comparison) -> Move | None:
        return self._say("fits")

    async def _compared(self, then: Callable[[Comparison], Awaitable[Move | None]]) -> Move | None:
        """Compare, and if the codes agree do something; again and again as long as that comes to nothing."""
        host, run_id = self._host, self._run.run_id
        workflow = self._plugin.workflows.get(self._run.workflow)
        if workflow is None:
            why = f"plugin {self._plugin.name!r} no longer has workflow {self._run.workflow!r}"
            return self._say("stays", Difference("", f"workflow {self._run.workflow}", "nothing", why))
        deadline = trio.current_time() + PATIENCE
        while trio.current_time() < deadline and not host.stopping:
            run = await host.store.run(run_id)
            if run is None or run.status in ENDED:
                return None
            if run.code_hash == workflow.code_hash:
                return self._say("moved")
            self._run = run
            try:
                done = await self._compare(run, workflow, then)
            except DamagedRow as damage:
                return self._say("stays", Difference("", "a journal that can be read", "damage", str(damage)))
            except (Unsettled, Unavailable):
                done = None
            if done is not None:
                return done
            await host.rest(0.01)
        return self._say("busy")

    async def _compare(
        self, run: Run, workflow: Workflow[..., object], then: Callable[[Comparison], Awaitable[Move | None]]
    ) -> Move | None:
        events = await self._host.store.events(run.run_id)
        comparison = Comparison(run, await self._host.code_of(run), workflow, events)
        try:
            await comparison.run()
            if comparison.has_ended:
                return None
            difference = comparison.difference(additions=self._additions)
            return await then(comparison) if difference is None else self._say("stays", difference)
        finally:
            with trio.CancelScope(shield=True):
                await comparison.close()

    def _say(self, state: str, difference: Difference | None = None) -> Move:
        run = self._run
        facts = {} if difference is None else msgspec.structs.asdict(difference)
        return Move(run.run_id, run.workflow, run.workflow_id, run.code_hash, state, **facts)

    # ---- the move

    async def _move(self, comparison: Comparison) -> Move | None:
        """Move the run, if it still stands where it was compared."""
        host, run_id = self._host, self._run.run_id
        if (suspension := host.suspended.get(run_id)) is not None:
            return self._say("moved") if await self._append(comparison, suspension.incident) else None
        with trio.move_on_after(PATIENCE), host.passivation.keeping(run_id):
            actor = await host.present(run_id)
            if actor is None:
                return None
            if not (_settled(actor) and actor.seq == comparison.seq):
                return await self._hold(actor)
            return self._say("moved") if await self._change(actor, comparison) else None
        return None

    async def _hold(self, actor: Actor) -> Move | None:
        """Start nothing more for the run until it has settled, and compare again there."""
        if actor.hold:
            return None
        actor.hold = True
        try:
            with trio.move_on_after(PATIENCE):
                while not _settled(actor) and actor.live:
                    with trio.move_on_after(GLANCE):  # not all that is written is an event
                        await actor.changed()
                workflow = self._plugin.workflows[self._run.workflow]
                return await self._compare(self._run, workflow, self._move)
            return None
        finally:
            actor.hold = False
            actor.guard(_carry_on, actor)

    async def _change(self, actor: Actor, comparison: Comparison) -> bool:
        """Have it recorded that a live run goes on with the new code, which takes over as soon as that is committed.

        A run that was blocked begins anew from its journal, as after a crash. False if the journal has refused it.
        """
        code_hash = self._plugin.code_hash
        change = partial(actor.append, Kind.CODE_CHANGED, "", CodeChanged(code_hash), by=self._by)
        row = RunChange(code_hash=code_hash)
        blocked = actor.machine.blocked is not None
        successor = None if blocked else comparison.take()
        closed: tuple[Incident, ...] = ()
        if blocked and (incident := actor.incidents.pop("", None)) is not None:
            closed = (self._closed(incident),)
        verdicts: list[Verdict] = []
        told = trio.Event()

        def then(verdict: Verdict) -> None:
            verdicts.append(verdict)
            told.set()
            if isinstance(verdict, Written):
                actor.run.code_hash = code_hash
                if blocked:
                    actor.ask(Exit.RESTART)
            if successor is not None:
                self._take_over(actor, successor, verdict)

        change(change=row, incidents=closed, then=then)
        await told.wait()
        return isinstance(verdicts[0], Written)

    def _take_over(self, actor: Actor, successor: Machine, verdict: Verdict) -> None:
        """Let the new code's machine take the place of the old one, unless the run is about to leave memory."""
        retired = successor
        if isinstance(verdict, Written) and actor.live and not actor.leaving:
            successor.succeed(actor.machine)
            retired, actor.machine = actor.machine, successor
            actor.guard(_recode, actor, self._plugin.workflows[self._run.workflow])
            actor.hold = False
            actor.guard(_carry_on, actor)
        self._host.nursery.start_soon(retire, retired)

    async def _append(self, comparison: Comparison, incident: Incident) -> bool:
        """Record the move of a run that has no actor because it waits for a person, and let it go on.

        One that rests because its workflow is quarantined rests on until that is lifted.
        """
        host, run, last = self._host, self._run, comparison.events[-1]
        code_hash = self._plugin.code_hash
        at = max(host.clock.now(), last.at)
        event = Event(run.run_id, last.seq + 1, Kind.CODE_CHANGED, "", encode(CodeChanged(code_hash)), at, 0, self._by)
        change, own = RunChange(code_hash=code_hash), incident.run_id is not None
        closed = (self._closed(incident),) if own else ()
        entry = Entry(run.run_id, run.shard, events=(event,), change=change, incidents=closed)

        def done(verdict: Verdict) -> None:
            suspension = host.suspended.get(run.run_id)
            if isinstance(verdict, Written) and own and suspension is not None:
                suspension.over.set()

        return isinstance(await host.committer.submit_and_wait(entry, done), Written)

    def _closed(self, incident: Incident) -> Incident:
        why = f"the run goes on with code {self._plugin.code_hash} of plugin {self._plugin.name!r}"
        return resolved(incident, "adopted", by=self._by, why=why, at=self._host.clock.now())


def _settled(actor: Actor) -> bool:
    """Whether all that is recorded has been delivered and nothing more is on its way; steps may be under way."""
    machine = actor.machine
    delivered = machine.blocked is not None or machine.seq == actor.seq
    return actor.live and delivered and not (actor.leaving or actor.pending or machine.outcome is not None)


def _recode(actor: Actor, workflow: Workflow[..., Any]) -> None:
    """Let what is under way go on under other code: attempts as they are, what waits for its time or turn anew."""
    before, actor.workflow = actor.workflow, workflow
    for path, timer in actor.timers.items():
        timer.cancel()
        actor.active.discard(path)
    actor.timers.clear()
    for path, attempt in list(actor.attempts.items()):
        attempt.entry = actor.machine.open[path]
        if attempt.turn is not None:
            effects.stop(actor, attempt)
    actor.services.slots.rebook(before, workflow, len(actor.attempts))


def _carry_on(actor: Actor) -> None:
    """Carry out what was held back, and what the new code asks for."""
    if actor.live and actor.machine.blocked is None:
        for entry in list(actor.machine.open.values()):
            actor.carry_out(entry)
