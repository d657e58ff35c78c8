"""The plugins of a running daemon: bringing what was found into use, and doing that again when files have changed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from jivsd import logs
from jivsd.engine.api import PluginChange, Reloaded, Unavailable
from jivsd.engine.incidents import resolved
from jivsd.records import Incident, IncidentState, derived_id
from jivsd.registry.registry import Report
from jivsd.registry.source import PluginProblem
from jivsd.store.api import StoreAway, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.engine.host import Host
    from jivsd.registry.registry import LoadedPlugin, Registry
    from jivsd.store.api import Store

log = logs.get(__name__)

NO_RUN: Final = "00000000-0000-7000-8000-000000000000"
"""Incidents that belong to no run derive their ids from this one."""


class Plugins:
    """Loads the plugins of a host again."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._turn = trio.Lock()

    async def reload(self, by: str) -> Reloaded:
        """See `Engine.reload_plugins`."""
        host = self._host
        async with self._turn:
            before = host.code.plugins
            if host.threads is None:
                found = host.code.survey()
            else:
                found = await trio.to_thread.run_sync(host.code.survey)
            try:
                await settle(host.code, host.store, found, before, host.clock.now())
            except StoreAway as error:
                raise Unavailable(f"the journal cannot keep the plugins' code now: {error}") from None
            done = _compared(before, host.code)
        log.info("plugins loaded again", by=by, changes={one.name: one.change for one in done.plugins})
        return done


async def settle(code: Registry, store: Store, found: Report, before: Sequence[LoadedPlugin], now: int) -> None:
    """Let new runs use what was found, once its source is kept in the store and its own tables are up to date.

    A plugin whose migrations fail is a problem too: the version `before` stays in use, if there was one. Each problem
    is an incident until it has gone.

    Raises:
        StoreAway: the store cannot be written to; nothing new is in use.
    """
    usable: list[LoadedPlugin] = []
    problems = list(found.problems)
    for plugin in found.plugins:
        if plugin in before:
            usable.append(plugin)
            continue
        for finding in plugin.findings:
            log.warning("a plugin may not be durable", plugin=plugin.name, finding=str(finding))
        try:
            await store.put_plugin(plugin.stored)
            await store.migrate_plugin(plugin.name, plugin.migrations)
        except StoreAway:
            raise
        except StoreError as error:
            problems.append(PluginProblem(str(error), plugin=plugin.name, where=plugin.where))
            usable.extend(old for old in before if old.name == plugin.name)
        else:
            usable.append(plugin)
    code.use(Report(usable, problems))
    await _tell(store, problems, now)


async def _tell(store: Store, problems: list[PluginProblem], now: int) -> None:
    """Open an incident for each problem, and close those that have gone."""
    named = {derived_id(NO_RUN, str(problem)): problem for problem in problems}
    for incident_id, problem in named.items():
        log.error("a plugin cannot be used", plugin=problem.plugin, why=str(problem))
        details = {"plugin": problem.plugin, "where": problem.where}
        await store.put_incident(Incident(incident_id, "plugin", str(problem), now, details=details))
    known, _ = await store.incidents(IncidentState.OPEN, limit=1000)
    for incident in known:
        if incident.kind == "plugin" and incident.run_id is None and incident.incident_id not in named:
            await store.put_incident(resolved(incident, "gone", by="daemon", why="the plugin loads now", at=now))


def _compared(before: Sequence[LoadedPlugin], code: Registry) -> Reloaded:
    """What has become of each plugin."""
    was = {plugin.name: plugin for plugin in before}
    change = partial(_change, was=was, problems=code.problems)
    changes = [change(plugin) for plugin in code.plugins]
    names = {plugin.name for plugin in code.plugins}
    changes += [_shown(plugin, "removed", None) for plugin in before if plugin.name not in names]
    return Reloaded(changes, [str(problem) for problem in code.problems])


def _change(plugin: LoadedPlugin, *, was: dict[str, LoadedPlugin], problems: list[PluginProblem]) -> PluginChange:
    old = was.get(plugin.name)
    if old is None:
        return _shown(plugin, "added", None)
    if old.code_hash != plugin.code_hash:
        return _shown(plugin, "changed", old.code_hash)
    kept = any(problem.concerns(plugin.name, plugin.where) for problem in problems)
    return _shown(plugin, "kept" if kept else "unchanged", plugin.code_hash)


def _shown(plugin: LoadedPlugin, change: str, was: str | None) -> PluginChange:
    return PluginChange(plugin.name, change, plugin.code_hash, was, sorted(plugin.workflows))
