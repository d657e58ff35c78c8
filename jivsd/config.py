"""The configuration: one frozen tree, made of layers, each of which overrides those before it.

Defaults, the TOML file, systemd credentials, `JIVSD_*` environment variables (`JIVSD_LOG__LEVEL` is `log.level`), and
flags. pydantic validates. The layers are not read by pydantic-settings: that ignores unknown variables, stops at the
first one that it cannot decode, and forgets where a value came from.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self, TypeVar, cast
from urllib.parse import quote

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from jivsd.clock import SECOND
from jivsd.layers import CONFIG_VARIABLE, Given, Key, KeyPath, Layer, Reader, dotted
from jivsd.masking import HIDDEN, masked
from jivsd.places import ConfigError, default_data_dir, socket_path
from jivsd.values import (
    Address,
    Duration,
    Folder,
    Microseconds,
    SecretUrl,
    Size,
    Whole,
    address,
    any_url,
    folders,
    lower,
    printable,
    redis_url,
    sqlite_path,
    store_url,
)

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = [
    "Address",
    "Config",
    "ConfigError",
    "Connection",
    "SecretUrl",
    "Setting",
    "default_data_dir",
    "describe",
    "load",
    "socket_path",
    "sqlite_path",
]

SHOWN_LIMIT = 120
"""Characters of a wrong value that an error repeats."""


S = TypeVar("S", bound="Section")


def _frozen(value: Mapping[str, S]) -> Mapping[str, S]:
    for name in value:
        if not re.fullmatch(r"[a-z0-9]+([_-][a-z0-9]+)*", name):
            raise ValueError(f"the name {name!r} must be lower-case letters and digits, joined by single _ or -")
    return MappingProxyType(dict(value))


def _fixed(value: Mapping[str, WorkflowSettings]) -> Mapping[str, WorkflowSettings]:
    return MappingProxyType(dict(value))


class Section(BaseModel):
    """A part of the tree: frozen, without unknown keys, and silent about its input when it is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Log(Section):
    """`[log]`."""

    level: Annotated[Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(lower)] = Field(
        default="info", description="The least severe messages that are written"
    )
    format: Annotated[Literal["auto", "json", "text"], BeforeValidator(lower)] = Field(
        default="auto", description="JSON lines, or text for people; auto: text if stderr is a terminal"
    )


class Limits(Section):
    """`[limits]`."""

    active_runs: Whole = Field(
        default=10_000, ge=1, le=10_000_000, description="Runs in memory that do not wait; for new starts"
    )
    running_steps: Whole = Field(
        default=2_000, ge=1, le=1_000_000, description="Steps that run at once; for new starts"
    )
    threads: Whole = Field(default=40, ge=1, le=10_000, description="Threads for steps that are plain functions")
    resident_runs: Whole = Field(default=3_000, ge=1, le=10_000_000, description="Waiting runs that stay in memory")
    passivate_after: Microseconds = Field(
        default=Duration(10 * SECOND), description="How long a run waits in memory before it leaves it"
    )
    payload_bytes: Size = Field(
        default=1 << 20, ge=1 << 10, le=1 << 26, description="The largest input, result or message"
    )
    depth: Whole = Field(default=64, ge=4, le=256, description="How deep JSON values may be nested")


class Shutdown(Section):
    """`[shutdown]`."""

    grace: Microseconds = Field(
        default=Duration(30 * SECOND), description="How long running steps may take to end when the daemon stops"
    )


class Cluster(Section):
    """`[cluster]`: several daemons on one PostgreSQL database."""

    share: bool = Field(
        default=False, description="Let other daemons share the database; said anyway by redis, and by several workers"
    )
    lease: Microseconds = Field(
        default=Duration(5 * SECOND), ge=SECOND // 2, description="How long a lock on a shard in Redis is good"
    )
    postgresql_lease: Microseconds = Field(
        default=Duration(20 * SECOND), ge=SECOND, description="How long a node counts as alive without a word from it"
    )
    handover: Microseconds = Field(
        default=Duration(3 * SECOND), description="How long running steps may take to end when a shard moves on"
    )


class Feed(Section):
    """`[feed]`: all events, for those who follow them."""

    keep: Microseconds = Field(
        default=Duration(3600 * SECOND), ge=SECOND, description="For how long who was away can go on where it was"
    )


class Recovery(Section):
    """`[recovery]`."""

    concurrency: Whole = Field(
        default=200, ge=1, le=100_000, description="Runs that are brought back at once after a start"
    )


class Supervision(Section):
    """`[supervision]`: a child or workflow that crashes more often is given up, or quarantined."""

    restarts: Whole = Field(
        default=5, ge=0, le=1_000_000, description="Restarts after crashes that are allowed in a period"
    )
    period: Microseconds = Field(default=Duration(60 * SECOND), description="The period in which restarts are counted")
    loop_warning: Microseconds = Field(
        default=Duration(5 * SECOND), description="When code holds up the event loop, the log says whose, after this"
    )
    loop_limit: Microseconds = Field(
        default=Duration(30 * SECOND),
        description="When a run's code holds up the event loop, the process ends after this, and the next holds it",
    )
    stuck_factor: Whole = Field(
        default=10, ge=2, le=1_000_000, description="A step that takes so many times its usual time is an incident"
    )
    stuck_least: Microseconds = Field(default=Duration(60 * SECOND), description="… but not before this")
    still: Microseconds = Field(default=Duration(60 * SECOND), description="So long a run may not move when it could")
    takedowns: Whole = Field(
        default=3, ge=1, le=1_000_000, description="Runs that end the process before their workflow is quarantined"
    )
    takedown_period: Microseconds = Field(
        default=Duration(3600 * SECOND), description="The period in which such runs are counted"
    )


class Connection(Section):
    """`[connections.NAME]`: something outside that inputs of workflows refer to by its name."""

    url: Annotated[SecretUrl, BeforeValidator(any_url)] = Field(description="Where it is, credentials included")
    system: str | None = Field(default=None, max_length=100, description="What it is, for people")


class TokenSettings(Section):
    """`[tokens.NAME]`: who presents the token to the endpoint may do what its role allows; NAME stands in records."""

    token: Annotated[SecretStr, AfterValidator(printable)] = Field(description="What is presented")
    role: Literal["read", "operate", "admin"] = Field(
        default="read", description="read, operate (start, signal, mend runs) or admin (plugins, quarantines, pruning)"
    )


class WorkflowSettings(Section):
    """`[workflows.NAME]`: limits of one workflow, instead of those in its code."""

    active_runs: Whole | None = Field(
        default=None, ge=1, le=10_000_000, description="Its runs that do not wait; for new starts"
    )
    running_steps: Whole | None = Field(
        default=None, ge=1, le=1_000_000, description="Its steps that run at once; for new starts"
    )


class Config(Section):
    """The whole configuration."""

    data_dir: Folder = Field(description="Where the daemon keeps its socket, its lock and the embedded store")
    store: Annotated[SecretUrl, BeforeValidator(store_url)] = Field(
        default_factory=lambda known: SecretUrl(f"sqlite:///{quote(str(known['data_dir'] / 'jivsd.db'))}"),
        description="Where the journal is: sqlite:////path or postgresql://…",
    )
    redis: Annotated[SecretUrl | None, BeforeValidator(redis_url)] = Field(
        default=None,
        description="Redis for the locks of several nodes: redis://…, redis+sentinel://…, redis+cluster://… or none",
    )
    plugins: Annotated[tuple[Folder, ...], BeforeValidator(folders)] = Field(
        default=(), description="Folders with plugins, besides the bundled ones"
    )
    token: Annotated[SecretStr, AfterValidator(printable)] | None = Field(
        default=None, description="What HTTP clients must present"
    )
    tokens: Annotated[Mapping[str, TokenSettings], AfterValidator(_frozen)] = Field(
        default_factory=lambda: MappingProxyType(dict[str, TokenSettings]()), description="Further tokens, with roles"
    )
    http: Annotated[Address | None, BeforeValidator(address)] = Field(
        default=None, description="Where HTTP is served besides the Unix socket: HOST:PORT or none"
    )
    workers: Whole = Field(
        default=1, ge=1, le=256, description="Processes that share this host's work, each a node; with PostgreSQL"
    )
    profile: Literal["development", "production"] = Field(default="production", description="development or production")
    node: str = Field(
        default_factory=socket.gethostname,
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$",
        description="The name of this node among those that share a database",
    )
    log: Log = Log()
    limits: Limits = Limits()
    shutdown: Shutdown = Shutdown()
    cluster: Cluster = Cluster()
    feed: Feed = Feed()
    recovery: Recovery = Recovery()
    supervision: Supervision = Supervision()
    connections: Annotated[Mapping[str, Connection], AfterValidator(_frozen)] = Field(
        default_factory=lambda: MappingProxyType(dict[str, Connection]()), description="Named connections"
    )

    workflows: Annotated[Mapping[str, WorkflowSettings], AfterValidator(_fixed)] = Field(
        default_factory=lambda: MappingProxyType(dict[str, WorkflowSettings]()), description="Limits of workflows"
    )

    _sources: Mapping[str, str] = PrivateAttr(default_factory=dict[str, str])

    @field_validator("http")
    @classmethod
    def _guarded(cls, value: Address | None, info: ValidationInfo) -> Address | None:
        free = info.data.get("token", "wrong") is None and not info.data.get("tokens")
        if value is not None and not value.loopback and free:
            raise ValueError("must be a loopback address, such as 127.0.0.1, unless a token is set")
        return value

    @field_validator("workers")
    @classmethod
    def _shared(cls, value: int, info: ValidationInfo) -> int:
        if value > 1 and "store" in info.data and info.data["store"].get_secret_value().startswith("sqlite:"):
            raise ValueError("must be 1 with an embedded store: several processes need a store postgresql://…")
        return value

    @classmethod
    def merged(cls, layer: Layer) -> Self:
        """Make the tree of a layer that holds all others, and remember the sources.

        Raises:
            pydantic.ValidationError: a value is wrong.
        """
        tree: dict[str, Any] = {}
        for path, given in layer.items():
            inner = tree
            for part in path[:-1]:
                inner = inner.setdefault(part, {})
            inner[path[-1]] = given.value
        config = cls.model_validate(tree)
        config._sources = MappingProxyType({dotted(path): given.source for path, given in layer.items()})
        return config

    @property
    def needs_token(self) -> bool:
        """Whether who asks over TCP has to present a token."""
        return self.token is not None or bool(self.tokens)

    def source(self, key: str) -> str:
        """Return where the value of a key, such as `log.level`, came from."""
        return self._sources.get(key, "default")


class Setting(NamedTuple):
    """A row of `jivsd config show`; `value` has no secret in it."""

    key: str
    value: str
    source: str
    help: str


def load(path: Path | None, overrides: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Config:
    """Read and check the configuration.

    Args:
        path: the TOML file; None: the one that `$JIVSD_CONFIG` names, if any.
        overrides: values of flags by dotted key, as in `{"log.level": "debug"}`; None where a flag was not given.
        environ: the environment variables.

    Raises:
        ConfigError: something is wrong; it has all problems that can be seen at once.
    """
    environ = os.environ if environ is None else environ
    reader = Reader(KEYS)
    layer: Layer = {("data_dir",): Given(default_data_dir(environ), "default")}
    if path is None and CONFIG_VARIABLE in environ:
        path = Path(environ[CONFIG_VARIABLE])
    if path is not None:
        layer |= reader.file(path.expanduser().absolute())
    if folder := environ.get("CREDENTIALS_DIRECTORY"):
        layer |= reader.credentials(Path(folder))
    layer |= reader.environment(environ)
    layer |= reader.flags(overrides)
    try:
        config = Config.merged(layer)
    except ValidationError as error:
        details = error.errors(include_url=False)
        reader.problems += [_problem(one, layer) for one in details if one["type"] != "default_factory_not_called"]
    else:
        if not reader.problems:
            return config
    raise ConfigError(reader.problems)


def describe(config: Config) -> list[Setting]:
    """Return all settings as people may see them, those of what has a name of its own last."""
    rows: list[Setting] = []
    for key, help in KEYS_HELP.items():
        names = getattr(config, key.path[0]) if "*" in key.path else [""]
        for name in names:
            path = tuple(part if part != "*" else name for part in key.path)
            rows.append(Setting(dotted(path), _shown(_value(config, path)), config.source(dotted(path)), help))
    return rows


def _keys(section: type[Section], path: KeyPath = ()) -> dict[Key, str]:
    found: dict[Key, str] = {}
    for name, field in section.model_fields.items():
        kind: object = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            found |= _keys(kind, (*path, name))
        elif name in NAMED:
            found |= _keys(NAMED[name], (*path, name, "*"))
        else:
            secret = "Secret" in repr(cast("object", kind))
            key = Key((*path, name), secret=secret, folders=name in ("data_dir", "plugins"))
            found[key] = field.description or ""
    return found


NAMED: Mapping[str, type[Section]] = {
    "connections": Connection,
    "tokens": TokenSettings,
    "workflows": WorkflowSettings,
}
"""Sections whose members have names that people choose."""
KEYS_HELP = _keys(Config)
KEYS = list(KEYS_HELP)


def _value(config: Config, path: KeyPath) -> Any:
    value: Any = config
    for part in path:
        value = cast("Mapping[str, Any]", value)[part] if isinstance(value, Mapping) else getattr(value, part)
    return value


def _shown(value: Any) -> str:
    match value:
        case None:
            return "none"
        case SecretStr():
            return HIDDEN
        case tuple() if not isinstance(value, Address):
            return os.pathsep.join(str(one) for one in cast("tuple[Any, ...]", value)) or "none"
        case _:
            return str(value)


def _problem(error: ErrorDetails, layer: Layer) -> str:
    """Say what pydantic found in one sentence: key, value, source, what is allowed."""
    path: KeyPath = tuple(str(part) for part in error["loc"])
    while path and path not in layer and len(path) > 1 and path[:-1] in layer:
        path = path[:-1]
    text = error["msg"].removeprefix("Value error, ")
    text = re.sub(r"^(Input|String|Value) should ", "must ", text)
    given = layer.get(path)
    if given is None:
        return f"{dotted(path)}: {'must be given' if error['type'] == 'missing' else text}"
    return f"{dotted(path)}{_repeated(path, given.value)} ({given.source}): {text}"


def _repeated(path: KeyPath, value: Any) -> str:
    """Return the wrong value for an error message; nothing of a secret, and of a URL only what is none."""
    key = next(key for key in KEYS if key.matches(path))
    if key.secret and (path[-1] == "token" or not isinstance(value, str) or re.search(r"\s", value)):
        return ""
    text = masked(str(value) if isinstance(value, Path) else repr(value))
    if key.secret and "://" not in text:
        return ""
    return f" = {text if len(text) <= SHOWN_LIMIT else text[:SHOWN_LIMIT] + '…'}"
