"""Runs `async def` tests with trio."""

from __future__ import annotations

import inspect
import logging
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import debian
import pytest
import structlog
import trio
import trio.testing
from databases import NEWEST, Servers, in_memory
from hypothesis import HealthCheck, settings

from jivsd import logs
from jivsd.proof import redisserver
from jivsd.testing import crash

if TYPE_CHECKING:
    from collections.abc import Iterator

# A shell has a job in the background, and all that it starts, ignore Ctrl-C. How the tests are started must not decide
# whether they pass.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# what runs beside a test must not decide whether it passes
settings.register_profile("jivsd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("jivsd")


@pytest.fixture(autouse=True)
def _logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the process's logging back: what runs a daemon in this process has set it up."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    monkeypatch.setattr(logs, "_output", vars(logs)["_output"])
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Servers]:
    """`postgres(18)` are the databases of a PostgreSQL server of that version. It does not sync: for conformance."""
    servers = Servers()
    yield servers
    servers.close()


@pytest.fixture(scope="session")
def redis() -> Iterator[redisserver.Server]:
    """A Redis server without persistence, one a worker. Who kills it starts it again; what is in it is anybody's."""
    with redisserver.Server() as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[redisserver.Cluster]:
    """A Redis Cluster of three nodes and a replica of the first, one a worker; it takes two seconds to form."""
    with redisserver.Cluster(replicas=1) as cluster:
        yield cluster


def pytest_sessionstart(session: pytest.Session) -> None:
    """Stop before the tests, or have it installed, where a program is missing that they cannot do without."""
    dashboard = Path(__file__).parent / "dashboard"
    asked = [
        Path(session.config.invocation_params.dir, one.partition("::")[0]).resolve() for one in session.config.args
    ]
    if any(dashboard.is_relative_to(path) or path.is_relative_to(dashboard) for path in asked):
        debian.needed(*debian.CHROMIUM)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--journal postgresql`: what tests keep in memory in SQLite, they keep in a PostgreSQL database."""
    parser.addoption("--journal", choices=("sqlite", "postgresql"), default="sqlite", help="where tests keep journals")


@pytest.fixture(autouse=True)
def _journal(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--journal") == "postgresql":
        if request.node.get_closest_marker("embedded"):
            pytest.skip("it looks into the embedded store")
        request.getfixturevalue("journals_in_postgres")


@pytest.fixture
def journals_in_postgres(postgres: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the test keeps in memory in SQLite otherwise, it keeps in PostgreSQL."""
    store = in_memory(postgres(NEWEST))
    monkeypatch.setattr("jivsd.testing.env.SqliteStore", store)
    derived: list[type] = [vars(crash)["_MortalStore"]]
    if (stores := sys.modules.get("engine.stores")) is not None:
        derived.append(stores.FickleStore)
    before = [one.__bases__ for one in derived]
    for one in derived:
        one.__bases__ = (store,)
    yield
    for one, bases in zip(derived, before, strict=True):
        one.__bases__ = bases


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip long campaigns unless they are asked for with `-m soak`."""
    if "soak" in config.getoption("-m"):
        return
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.skip(reason="a long campaign: run it with -m soak"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run the test in a trio loop of its own; marked `jump`, on a clock that jumps as soon as all tasks wait.

    A jump does not wait for threads: such a test must not use any.
    """
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(test).parameters}
    jumps = pyfuncitem.get_closest_marker("jump") is not None
    trio.run(partial(test, **arguments), clock=trio.testing.MockClock(autojump_threshold=0) if jumps else None)
    return True
