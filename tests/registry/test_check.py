"""What the check of workflow code finds, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent

import pytest

from jivsd.registry import Registry
from jivsd.registry.check import check_source
from jivsd.registry.check.rules import ORIGINS, RULES, rule_for
from jivsd.registry.checkup import check_path
from jivsd.registry.source import Source

TOP = """\
from __future__ import annotations
import asyncio, contextlib, datetime as dt, os, random, socket, subprocess, sys, threading, time as clock, uuid
import concurrent.futures
import httpx, requests, trio
import jivsd
from datetime import datetime
from itertools import count
from pathlib import Path
from random import choice
from uuid import uuid4
from jivsd import Cancelled, Context, Frozen, StepContext, step, workflow

CACHE = {}
SEEN: list[str] = []
NUMBERS = count()
CLIENT = httpx.Client()

class Shared:
    total = 0

@step
async def copy(ctx: StepContext, table: str) -> int:
    await trio.sleep(1)
    SEEN.append(table)
    return clock.time() + random.random()

@copy.compensate
def drop(ctx, rows, table):
    open("x")

async def helper(ctx: Context, depth: int) -> int:
    await ctx.sleep(depth)
    return depth

def pure(value):
    return value + 1

"""


def lines_of(text: str) -> list[tuple[str, str]]:
    """The findings in a workflow's body: the rule, and the line's text."""
    source = Source("p", {"p.py": text})
    shown = text.splitlines()
    return [(finding.rule, shown[finding.line - 1].strip()) for finding in check_source(source)]


def in_workflow(body: str) -> list[tuple[str, str]]:
    return lines_of(f'{TOP}@workflow("w")\nasync def w(ctx: Context, n: int) -> None:\n{indent(dedent(body), "    ")}')


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("J01", "a = clock.time()"),
        ("J01", "a = clock.monotonic()"),
        ("J01", "a = datetime.now()"),
        ("J01", "a = dt.datetime.now(dt.UTC)"),
        ("J01", "a = dt.date.today()"),
        ("J01", "await ctx.step(copy, clock.time())"),
        ("J01", "await ctx.wait_until(lambda: clock.time() > n)"),
        ("J02", "a = random.random()"),
        ("J02", "a = choice([1, 2])"),
        ("J02", "a = random.Random()"),
        ("J02", "a = uuid4()"),
        ("J02", "a = uuid.uuid1()"),
        ("J02", "a = os.urandom(8)"),
        ("J02", "a = hash('x')"),
        ("J02", "a = id(n)"),
        ("J03", "a = open('x')"),
        ("J03", "a = socket.create_connection(('h', 1))"),
        ("J03", "a = requests.get('u')"),
        ("J03", "a = httpx.Client().get('u')"),
        ("J03", "a = CLIENT.get('u')"),
        ("J03", "a = Path('x').read_text()"),
        ("J03", "a = os.listdir('x')"),
        ("J03", "a = os.path.exists('x')"),
        ("J03", "a = subprocess.run(['x'])"),
        ("J03", "import sqlite3; sqlite3.connect('x')"),
        ("J03", "a = sys.stdin.readline()"),
        ("J04", "a = os.environ['HOME']"),
        ("J04", "a = os.getenv('HOME')"),
        ("J04", "a = sys.argv[1]"),
        ("J05", "clock.sleep(1)"),
        ("J06", "await trio.sleep(1)"),
        ("J06", "await asyncio.sleep(1)"),
        ("J06", "await asyncio.gather()"),
        ("J06", "await CLIENT.thing"),
        ("J06", "await n.get()"),
        ("J06", "async with trio.open_nursery() as nursery: pass"),
        ("J06", "async with n.session() as s: pass"),
        ("J06", "async for x in n.rows(): pass"),
        ("J06", "trio.lowlevel.spawn_system_task(helper)"),
        ("J06", "with trio.move_on_after(1): pass"),
        ("J07", "for x in {1, 2}: pass"),
        ("J07", "for x in set('ab'): pass"),
        ("J07", "a = [x for x in {1, 2}]"),
        ("J07", "a = list({1} | {2})"),
        ("J07", "a = list(set('ab').union('c'))"),
        ("J07", "a = {1}; b = list(a)"),
        ("J07", "a = ','.join(set('ab'))"),
        ("J07", "a = [*set('ab')]"),
        ("J07", "a = next(iter(set('ab')))"),
        ("J07", "a = set('ab').pop()"),
        ("J07", "for x in {}.keys() - {}.keys(): pass"),
        ("J08", "global CACHE"),
        ("J08", "CACHE['a'] = 1"),
        ("J08", "CACHE['a'] += 1"),
        ("J08", "del CACHE['a']"),
        ("J08", "SEEN.append('a')"),
        ("J08", "CACHE.setdefault('a', []).append(1)"),
        ("J08", "Shared.total += 1"),
        ("J08", "dt.setting = 1"),
        ("J08", "a = next(NUMBERS)"),
        ("J08", "a, CACHE['b'] = 1, 2"),
        ("J10", "threading.Thread(target=pure).start()"),
        ("J10", "a = concurrent.futures.ThreadPoolExecutor()"),
        ("J11", "await copy('t')"),
        ("J11", "copy('t')"),
        ("J12", "ctx.sleep(5)"),
        ("J12", "ctx.step(copy, 't')"),
    ],
)
def test_found(rule, line):
    assert (rule, line) in in_workflow(line)


@pytest.mark.parametrize(
    "handler",
    [
        "except:",
        "except BaseException:",
        "except (ValueError, BaseException) as error:",
        "except Cancelled:",
        "except jivsd.Frozen:",
        "except* BaseException:",
    ],
)
def test_swallowing_what_must_pass(handler):
    assert in_workflow(f"try:\n    await ctx.sleep(1)\n{handler}\n    pass") == [("J09", handler)]
    assert in_workflow(f"try:\n    await ctx.sleep(1)\n{handler}\n    raise") == []


def test_other_ways_of_swallowing():
    assert in_workflow("try:\n    pass\nfinally:\n    return 5") == [("J09", "return 5")]
    line = "with contextlib.suppress(BaseException): pass"
    assert in_workflow(line) == [("J09", line)]


CLEAN = """
    result = await ctx.step(copy, "t")
    result = await ctx.step(copy.options(timeout="1h"), "t")
    await helper(ctx, 5)
    await ctx.run("other", {})
    print("fine", len({1}), sorted({2, 1}), max({1, 2}), 5 in {5}, any(x for x in {1}))
    a = {x + 1 for x in {1, 2}}
    names = set("ab"); names.add("c"); ordered = sorted(names)
    names = sorted(names)
    for name in names: pass
    for name in {"a": 1}: pass
    now, chance, identity = ctx.now(), ctx.random.random(), ctx.uuid()
    code = await ctx.side_effect(lambda: random.randrange(10))
    def draw(): return uuid4()
    drawn = await ctx.side_effect(draw)
    seeded = random.Random(n).random()
    moment = datetime(2026, 1, 1); later = dt.timedelta(days=1); joined = os.path.join("a", "b")
    async with ctx.nursery("n", limit=3) as nursery, ctx.saga():
        job = nursery["k"].start_soon(copy, "t")
        nursery.start_soon(helper, ctx, 1)
        async def inner(depth: int) -> int:
            await ctx.sleep(depth)
            return depth
        nursery.start_soon(inner, 5)
        await inner(3)
    async with ctx.race() as race: pass
    with ctx.fail_after("1m") as scope: scope.cancel()
    waiting = ctx.sleep(5)
    await waiting
    c = ctx
    await c.sleep(1)
    await (ctx.sleep(1) if n else ctx.sleep(2))
    local = []; local.append(n); local[0] = 2
    open = pure; open(1)
    try:
        await ctx.sleep(1)
    except ValueError: pass
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(ctx.saga())
    value = CACHE.get("a"), len(SEEN)
    stamp = clock.time()  # jivsd: ignore
"""


def test_left_alone():
    assert in_workflow(CLEAN) == []


def test_classes_with_their_methods_handlers_and_bases():
    text = TOP + dedent("""
        class Base:
            seen: set[str]

            async def wait(self, ctx: Context) -> None:
                await trio.sleep(1)

        @workflow("c")
        class C(Base):
            def __init__(self) -> None:
                self.names = set()

            @jivsd.signal
            def approve(self, by: str) -> None:
                self.at = clock.time()

            async def run(self, context: Context) -> None:
                self.ctx = context
                await self.ctx.sleep(1)
                await self.wait(context)
                await self.tell()
                for name in self.names: pass
                for name in self.seen: pass
                self.names.add("x")
                await self.client.get()

            async def tell(self) -> None:
                await self.ctx.sleep(1)

        class NoWorkflow:
            def fine(self) -> float:
                return clock.time()
    """)
    assert lines_of(text) == [
        ("J06", "await trio.sleep(1)"),
        ("J01", "self.at = clock.time()"),
        ("J07", "for name in self.names: pass"),
        ("J07", "for name in self.seen: pass"),
        ("J06", "await self.client.get()"),
    ]


def test_functions_that_workflows_use_are_workflow_code_across_modules():
    files = {
        "__init__.py": """
            from jivsd import Context, workflow
            from . import tools
            from .tools import wait, again
            from .deep import nested

            @workflow("w")
            async def w(ctx: Context) -> None:
                await wait(ctx)
                await tools.more(ctx)
                await again(ctx)
                async with ctx.nursery() as nursery:
                    nursery.start_soon(nested.run, ctx)
                await ctx.wait_until(tools.ready)
                await tools.work("t")
        """,
        "tools.py": """
            import time
            from jivsd import Context, step
            from .deep.nested import again
            async def wait(ctx: Context): time.time()  # 1
            async def more(ctx: Context): return inner()
            def inner(): return time.time()  # 2
            def unused(): return time.time()
            def ready(): return time.time()  # 3
            @step
            async def work(t: str): return time.time()
        """,
        "deep/__init__.py": "",
        "deep/nested.py": """
            from time import time
            from .. import tools
            async def again(ctx): time()  # 4
            async def run(ctx): tools.inner(); tools.CACHE.append(1)  # 5
        """,
    }
    texts = {name: dedent(text) for name, text in files.items()}
    found = check_source(Source("p", texts))
    places = [(one.file.partition(" of p")[0], one) for one in found]
    lines = [(file, one.rule, texts[file].splitlines()[one.line - 1].partition("# ")[2]) for file, one in places]
    assert lines == [
        ("__init__.py", "J11", ""),
        ("deep/nested.py", "J01", "4"),
        ("deep/nested.py", "J08", "5"),
        ("tools.py", "J01", "1"),
        ("tools.py", "J01", "2"),
        ("tools.py", "J01", "3"),
    ]


def test_a_finding_says_where_and_what_instead(tmp_path):
    path = tmp_path / "p.py"
    path.write_text(
        "import trio, time\nfrom jivsd import *\n@workflow('w')\nasync def w(ctx: Context) -> None:\n"
        "    await trio.sleep(time.time())\n"
    )
    assert [str(finding) for finding in check_path(path)] == [
        f"{path}:5: J01: `time.time()` reads a clock, which says something else in a replay; use ctx.now()",
        f"{path}:5: J06: `await trio.sleep(...)` is not durable: a workflow awaits only what comes from its Context; "
        "use `await ctx.sleep(...)`",
    ]


def test_odd_code_never_breaks_the_check():
    for text in (
        "def broken(:",
        "x = x.y(); y = z(); z = y()",
        "x = " + "(" * 5000 + ")" * 5000,
        "x = 1" + " + 1" * 50_000,
        "\0",
    ):
        assert [finding.rule for finding in check_source(Source("p", {"p.py": text}))] in ([], ["J00"])


def test_every_rule_is_told_from_the_others():
    assert len({rule.code for rule in RULES}) == len(RULES)
    assert rule_for("os.path.join") is None
    assert rule_for("os.remove") is ORIGINS["os"]
    assert rule_for("datetime.datetime.now") is ORIGINS["datetime.datetime.now"]
    assert rule_for("timeless.thing") is None


def test_check_path_of_what_does_not_load(folder, nap):
    assert [str(one) for one in check_path(folder.path)] == [
        f"{folder.path}: load: there is no plugin here, neither a .py file nor a package"
    ]
    folder.write("good.py", nap)
    assert check_path(folder.path) == []
    folder.write("bad.py", "\nx = = 1\n")
    folder.write("idle.py", "x = 1\n")
    error, warning = check_path(folder.path)
    assert str(error) == f"{folder.path / 'bad.py'}:2: load: it is not valid Python: invalid syntax"
    assert (error.is_error, warning.is_error) == (True, False)
    assert "plugin 'idle' has no workflow" in str(warning)


def test_the_bundled_plugins_keep_to_the_rules():
    plugins = Registry().load(installed=False).plugins
    assert len(plugins) >= 2
    assert [finding for plugin in plugins for finding in check_path(Path(plugin.where))] == []
