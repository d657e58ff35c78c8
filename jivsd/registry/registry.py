"""The plugins that are loaded, and the workflows in them, by name and by the version of their code."""

from __future__ import annotations

import copy
import importlib
import inspect
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from jivsd.authoring.errors import InvalidDefinition
from jivsd.authoring.paths import check_name
from jivsd.authoring.routes import Route
from jivsd.authoring.secrets import Mask, mask_of
from jivsd.authoring.steps import Step
from jivsd.authoring.workflows import Workflow
from jivsd.clock import SystemClock
from jivsd.registry import discovery, loading
from jivsd.registry.awaited import awaited
from jivsd.registry.check import Finding, check_source
from jivsd.registry.migrations import Migrations, migrations_of
from jivsd.registry.secrets import Secrets
from jivsd.registry.source import PluginProblem, Source
from jivsd.store.api import Plugin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path
    from types import ModuleType

    from jivsd.clock import Clock

AnyWorkflow = Workflow[..., Any]


@dataclass(frozen=True, kw_only=True)
class LoadedPlugin:
    """A version of a plugin. `stored` is what the store keeps, so that open runs find their code again.

    `findings` are the AST check's warnings; `migrations` are those of the plugin's own tables, by dialect.
    """

    name: str
    code_hash: str
    where: str
    workflows: dict[str, AnyWorkflow]
    stored: Plugin
    routes: list[Route] = field(default_factory=list[Route])
    secret_steps: dict[str, Mask] = field(default_factory=dict[str, Mask])
    version: str | None = None
    findings: list[Finding] = field(default_factory=list[Finding])
    migrations: Migrations = field(default_factory=Migrations)


@dataclass(frozen=True)
class Report:
    """What became of loading: the plugins, and a problem for each that is not among them."""

    plugins: list[LoadedPlugin]
    problems: list[PluginProblem]


class Registry:
    """Loads plugins and knows their workflows. A plugin that cannot be used is a problem and hurts no other."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._look: Callable[[], Iterable[discovery.Found]] = tuple
        self._modules: list[LoadedPlugin] = []
        self._plugins: list[LoadedPlugin] = []
        self._newest: dict[str, AnyWorkflow] = {}
        self._gone: dict[str, LoadedPlugin] = {}
        self._versions: dict[tuple[str, str], AnyWorkflow] = {}
        self._secrets: dict[tuple[str, str], Secrets] = {}
        self._files: dict[str, dict[str, str]] = {}
        self._awaited: dict[str, frozenset[str] | None] = {}
        self.problems: list[PluginProblem] = []
        """Those of what is in use."""

    @property
    def plugins(self) -> list[LoadedPlugin]:
        """The plugins that new runs use."""
        return list(self._plugins)

    @property
    def workflows(self) -> list[AnyWorkflow]:
        """The workflows that can be started."""
        return list(self._newest.values())

    def workflow(self, name: str) -> AnyWorkflow | None:
        """The newest code of a workflow."""
        return self._newest.get(name)

    def gone(self, name: str) -> LoadedPlugin | None:
        """The plugin that had a workflow which cannot be started any more, as it was when it was in use last."""
        return self._gone.get(name)

    def resolve(self, name: str, code_hash: str) -> AnyWorkflow | None:
        """The code that a run began with, if it is loaded; if not, `load_source` loads what the store has kept."""
        return self._versions.get((name, code_hash))

    def secrets(self, name: str, code_hash: str) -> Secrets | None:
        """What is secret of the runs of a version of a workflow; None if it is not loaded."""
        return self._secrets.get((name, code_hash))

    def awaited(self, code_hash: str) -> frozenset[str] | None:
        """The names of the signals that a plugin's code waits for by name; None if that cannot be known."""
        if code_hash not in self._files:
            return None
        if code_hash not in self._awaited:
            self._awaited[code_hash] = awaited(self._files[code_hash])
        return self._awaited[code_hash]

    def load(
        self, paths: Sequence[Path] = (), *, bundled: bool = True, installed: bool = True, trusted: bool = False
    ) -> Report:
        """Load the plugins that come with jivsd, those of installed distributions, then those at `paths`.

        A path is a folder of plugins, or one plugin; `trusted` skips the question of who can write there, for an
        author's own tests. Of two with one name, or with a workflow of one name, the first
        stays. Loaded again, what is found now takes the place of what was found before; older code stays at hand for
        `resolve`.
        """
        self._look = partial(_found, tuple(paths), bundled=bundled, installed=installed, trusted=trusted)
        self._modules.clear()
        report = self._survey([])
        self.use(report)
        return report

    def survey(self) -> Report:
        """Load what is now where `load` has looked, and use nothing of it yet: that is for `use`.

        Of a plugin that was in use and now has a problem the report has the problem, and the version in use. May be
        called in a thread.
        """
        importlib.invalidate_caches()
        return self._survey(self.plugins)

    def use(self, report: Report) -> None:
        """Let new runs use these plugins and no others."""
        newest = {name: workflow for plugin in report.plugins for name, workflow in plugin.workflows.items()}
        for plugin in self._plugins:
            self._gone.update((name, plugin) for name in plugin.workflows)
        for name in newest:
            self._gone.pop(name, None)
        self._plugins, self._newest, self.problems = list(report.plugins), newest, list(report.problems)
        for plugin in report.plugins:
            self._remember(plugin)

    def _survey(self, before: list[LoadedPlugin]) -> Report:
        plugins: dict[str, LoadedPlugin] = {}
        problems: list[PluginProblem] = []
        for found in self._look():
            try:
                if isinstance(found, PluginProblem):
                    raise found
                _admit(plugins, _unchanged(found, before) or self._load(found))
            except PluginProblem as problem:
                problems.append(problem)
                for old in before:
                    if problem.concerns(old.name, old.where):
                        with suppress(PluginProblem):
                            _admit(plugins, old)
        for plugin in self._modules:
            _admit(plugins, plugin)
        return Report(list(plugins.values()), problems)

    def load_source(self, stored: Plugin) -> LoadedPlugin:
        """Load a version that the store has kept, for `resolve`; new runs do not use it.

        Raises:
            PluginProblem: it cannot be loaded (any more), or is not what its hash says.
        """
        source = Source(stored.name, stored.files)
        if not stored.files or source.code_hash != stored.code_hash:
            raise PluginProblem(
                f"its files do not match their hash {stored.code_hash}", plugin=stored.name, where="in the journal"
            )
        plugin = self._load(source)
        self._remember(plugin)
        return plugin

    def add_module(self, module: ModuleType) -> LoadedPlugin:
        """Take the workflows of a module that is imported already: a test's own, for instance.

        Raises:
            PluginProblem: as for a plugin from a file.
        """
        try:
            text = inspect.getsource(module)
        except (OSError, TypeError):  # made by hand, or at the prompt
            text = module.__name__
        source = Source(module.__name__.rpartition(".")[2], {f"{module.__name__}.py": text})
        plugin = self._describe(source, [module], check=False)
        plugins = {other.name: other for other in self._plugins}
        _admit(plugins, plugin)
        self._modules.append(plugin)
        self.use(Report(list(plugins.values()), self.problems))
        return plugin

    def _load(self, source: Source) -> LoadedPlugin:
        modules = loading.load(source)
        try:
            check = source.origin is not None and not discovery.came_with_jivsd(source.origin)  # jivsd's tests do that
            return self._describe(source, modules, check=check)
        except PluginProblem:
            loading.forget(source)
            raise
        except Exception as error:  # what stands in its namespace may answer any question with any exception
            loading.forget(source)
            raise source.problem(f"{type(error).__name__} when its workflows were looked for: {error}") from error

    def _describe(self, source: Source, modules: list[ModuleType], *, check: bool) -> LoadedPlugin:
        name = _constant(source, modules[0], "NAME") or source.name
        try:
            check_name(name, "a plugin's name")
        except InvalidDefinition as error:
            raise source.problem(str(error)) from None
        migrations = migrations_of(source)
        if migrations and not hasattr(modules[0], "NAME"):
            raise source.problem("a plugin with migrations sets NAME, under which its tables are kept: NAME = ...")
        return LoadedPlugin(
            name=name,
            version=_constant(source, modules[0], "VERSION"),
            code_hash=source.code_hash,
            where=source.where,
            workflows=_workflows_of(source, modules),
            routes=_routes_of(source, modules),
            secret_steps=_secret_steps_of(modules),
            stored=Plugin(source.code_hash, name, dict(source.files), self._clock.now()),
            findings=check_source(source) if check else [],
            migrations=migrations,
        )

    def _remember(self, plugin: LoadedPlugin) -> None:
        if plugin not in self._modules:  # a module may have its workflows from others, which nobody has read
            self._files[plugin.code_hash] = plugin.stored.files
        for name, workflow in plugin.workflows.items():
            self._versions[name, plugin.code_hash] = workflow
            self._secrets[name, plugin.code_hash] = Secrets(workflow, plugin.secret_steps)


def _admit(plugins: dict[str, LoadedPlugin], plugin: LoadedPlugin) -> None:
    """Take a plugin in with others, unless its name, or that of a workflow, is taken."""
    first = plugins.get(plugin.name)
    if first is not None and first.code_hash == plugin.code_hash:
        return
    if first is not None:
        raise _refused(plugin, f"there is a plugin of this name already, {first.where}")
    for name in plugin.workflows:
        for other in plugins.values():
            if name in other.workflows:
                raise _refused(plugin, f"workflow {name!r} is in plugin {other.name!r} ({other.where}) already")
    plugins[plugin.name] = plugin


def _refused(plugin: LoadedPlugin, why: str) -> PluginProblem:
    return PluginProblem(f"{why}; that one stays, rename this one", plugin=plugin.name, where=plugin.where)


def _unchanged(source: Source, before: Iterable[LoadedPlugin]) -> LoadedPlugin | None:
    """The plugin in use that has this very source, which need not be looked at again."""
    return next((old for old in before if (old.code_hash, old.where) == (source.code_hash, source.where)), None)


def _found(paths: Iterable[Path], *, bundled: bool, installed: bool, trusted: bool) -> Iterator[discovery.Found]:
    if bundled:
        yield from discovery.in_bundle()
    if installed:
        yield from discovery.in_distributions()
    for path in paths:
        yield from discovery.in_path(path, trusted=trusted)


def _constant(source: Source, module: ModuleType, name: str) -> str | None:
    value = getattr(module, name, None)
    if value is not None and not isinstance(value, str):
        raise source.problem(f"its {name} is a text, not {value!r}")
    return value


def _workflows_of(source: Source, modules: Iterable[ModuleType]) -> dict[str, AnyWorkflow]:
    """The workflows that stand in the plugin's modules, by name, as this version's own."""
    found: dict[str, AnyWorkflow] = {}
    for value in [value for module in modules for value in vars(module).values()]:
        if not isinstance(value, Workflow) or value.is_copy:
            continue
        workflow = cast("AnyWorkflow", value)
        other = found.setdefault(workflow.name, workflow)
        if other.function is not workflow.function:
            raise source.problem(
                f"it has two workflows named {workflow.name!r}: {_defined(other)} and {_defined(workflow)}"
            )
    return {name: _owned(workflow, source.code_hash) for name, workflow in found.items()}


def _routes_of(source: Source, modules: Iterable[ModuleType]) -> list[Route]:
    """The routes that stand in the plugin's modules; those without placeholders come first."""
    found: dict[tuple[str, tuple[str | None, ...]], Route] = {}
    for value in [value for module in modules for value in vars(module).values()]:
        if isinstance(value, Route):
            shape = tuple(name if literal else None for literal, name in value.parts)
            other = found.setdefault((value.method, shape), value)
            if other is not value:
                raise source.problem(f"two of its routes answer the same: {other.where} and {value.where}")
    return sorted(found.values(), key=lambda route: len(route.placeholders))


def _secret_steps_of(modules: Iterable[ModuleType]) -> dict[str, Mask]:
    """By the names of the plugin's steps, where their results have secrets."""
    found: dict[str, Mask] = {}
    for value in [value for module in modules for value in vars(module).values()]:
        if isinstance(value, Step):
            one = cast("Step[..., Any]", value)
            if (mask := mask_of(one.signature.result.kind)) is not None:
                found[one.name] = mask
    return found


def _owned(workflow: AnyWorkflow, code_hash: str) -> AnyWorkflow:
    """The workflow with this code hash: a copy if another version has it (from a library that both import)."""
    if workflow.code_hash not in ("", code_hash):
        workflow = copy.copy(workflow)
    workflow.code_hash = code_hash
    return workflow


def _defined(workflow: AnyWorkflow) -> str:
    code = workflow.function.__code__
    return f"line {code.co_firstlineno} of {code.co_filename.rpartition('/')[2]}"
