"""The pytest plugin: `async def` tests of workflows, on the clock that jumps.

    async def test_greeting(jivsd_env):
        async with jivsd_env("greeting.py") as env:
            run = await env.start("greeting", {"name": "Ann"})
            assert await env.result(run) == "Hello, Ann"

It leaves all tests that do not ask for `jivsd_env` to whoever runs them (pytest-trio, anyio, a conftest.py).
"""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

OTHERS: Final = ("trio", "anyio", "asyncio")
"""The marks by which other plugins run async tests."""


@pytest.fixture
def jivsd_env(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes a `jivsd.testing.Env`; the paths of plugins are relative to the test's own folder."""
    from jivsd.testing.env import Env

    def make(*plugins: Any, **options: Any) -> Env:
        return Env(*_found(request, plugins), **options)

    return make


@pytest.fixture
def crash_everywhere(request: pytest.FixtureRequest) -> Callable[..., int]:
    """`jivsd.testing.crash_everywhere`, for tests that are plain functions; paths as for `jivsd_env`."""
    from jivsd.testing import crash_everywhere

    def everywhere(plugins: Any, scenario: Any, **options: Any) -> int:
        return crash_everywhere(_found(request, plugins), scenario, **options)

    return everywhere


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an async test that asks for `jivsd_env`, unless another plugin is to."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test) or "jivsd_env" not in pyfuncitem.fixturenames:
        return None
    if any(pyfuncitem.get_closest_marker(mark) is not None for mark in OTHERS):
        return None
    from jivsd.testing.env import run

    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(test).parameters}
    run(partial(test, **arguments))
    return True


def _found(request: pytest.FixtureRequest, plugins: Any) -> list[Any]:
    return [request.path.parent / it if isinstance(it, str | Path) else it for it in plugins]
