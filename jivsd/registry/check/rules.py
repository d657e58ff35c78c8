"""What workflow code had better not do, and what to do instead. All are warnings: a check of text can be mistaken."""

from __future__ import annotations

from typing import Final, NamedTuple


class Rule(NamedTuple):
    """`code` as it stands in findings; `why` completes "`time.time()` ..."; `advice` says what works."""

    code: str
    why: str
    advice: str


CLOCK: Final = Rule("J01", "reads a clock, which says something else in a replay", "use ctx.now()")
CHANCE: Final = Rule("J02", "is another value in a replay", "use ctx.random, ctx.uuid() or ctx.side_effect")
IO: Final = Rule("J03", "does I/O, which a replay would do again", "do it in a step: `await ctx.step(...)`")
SURROUNDINGS: Final = Rule(
    "J04", "may be different when the run is replayed", "pass it in the input, or record it with ctx.side_effect"
)
BLOCKING: Final = Rule("J05", "blocks every run of the daemon", "use `await ctx.sleep(...)`")
UNDURABLE: Final = Rule(
    "J06", "is not durable: a workflow awaits only what comes from its Context", "use ctx, or do it in a step"
)
SET_ORDER: Final = Rule("J07", "has another order in every process", "use sorted(...), or a list or dict")
GLOBAL: Final = Rule(
    "J08", "changes what all runs share, and a replay changes it again", "keep state in the run: in local names or self"
)
SWALLOWED: Final = Rule(
    "J09",
    "also swallows cancellation and freezing, which must pass",
    "catch Exception, or re-raise; clean up in `finally`",
)
THREAD: Final = Rule(
    "J10", "starts a thread or process that no replay knows", "use ctx.nursery() and steps; plain steps run in threads"
)
DIRECT: Final = Rule("J11", "runs the step's body here, unrecorded", "call it with `await ctx.step(...)`")
FORGOTTEN: Final = Rule("J12", "is not awaited, so it does nothing", "write `await` before it")

RULES: Final = (
    CLOCK,
    CHANCE,
    IO,
    SURROUNDINGS,
    BLOCKING,
    UNDURABLE,
    SET_ORDER,
    GLOBAL,
    SWALLOWED,
    THREAD,
    DIRECT,
    FORGOTTEN,
)

ORIGINS: Final[dict[str, Rule | None]] = {
    "time": CLOCK,
    "time.sleep": BLOCKING,
    "time.strptime": None,
    "time.struct_time": None,
    "datetime.datetime.now": CLOCK,
    "datetime.datetime.utcnow": CLOCK,
    "datetime.datetime.today": CLOCK,
    "datetime.date.today": CLOCK,
    "random": CHANCE,
    "numpy.random": CHANCE,
    "secrets": CHANCE,
    "secrets.compare_digest": None,
    "uuid.uuid1": CHANCE,
    "uuid.uuid4": CHANCE,
    "uuid_utils": CHANCE,
    "os.urandom": CHANCE,
    "hash": CHANCE,
    "id": CHANCE,
    "open": IO,
    "input": IO,
    "io.open": IO,
    "os": IO,
    "os.fspath": None,
    "os.path": None,
    "os.path.exists": IO,
    "os.path.isfile": IO,
    "os.path.isdir": IO,
    "os.path.getsize": IO,
    "os.path.getmtime": IO,
    "os.environ": SURROUNDINGS,
    "os.getenv": SURROUNDINGS,
    "os.getpid": SURROUNDINGS,
    "os.cpu_count": SURROUNDINGS,
    "sys.argv": SURROUNDINGS,
    "sys.stdin": IO,
    "platform": SURROUNDINGS,
    "socket": IO,
    "ssl": IO,
    "select": IO,
    "selectors": IO,
    "http.client": IO,
    "urllib.request": IO,
    "smtplib": IO,
    "ftplib": IO,
    "requests": IO,
    "httpx": IO,
    "urllib3": IO,
    "boto3": IO,
    "sqlite3": IO,
    "apsw": IO,
    "psycopg": IO,
    "psycopg2": IO,
    "redis": IO,
    "shutil": IO,
    "tempfile": IO,
    "glob": IO,
    "subprocess": IO,
    "threading": THREAD,
    "_thread": THREAD,
    "multiprocessing": THREAD,
    "concurrent.futures": THREAD,
    "trio": UNDURABLE,
    "asyncio": UNDURABLE,
    "anyio": UNDURABLE,
}
"""Rules by the longest matching origin of what is called; None: it is harmless."""

READ_ANYWHERE: Final = ("os.environ", "sys.argv", "sys.stdin")
"""Origins that matter when they are read, not only when they are called."""

FILE_METHODS: Final = frozenset(
    {"read_text", "read_bytes", "write_text", "write_bytes", "iterdir", "is_file", "is_dir", "unlink", "mkdir"}
)
"""Methods by which a pathlib.Path, whatever its name, is known to touch the disk."""

MUTATORS: Final = frozenset(
    {
        "append", "appendleft", "extend", "insert", "remove", "pop", "popleft", "popitem", "clear", "update", "add",
        "discard", "setdefault", "sort", "reverse",
    }
)  # fmt: skip
"""Methods that change a list, dict, set or deque."""

SET_METHODS: Final = frozenset({"union", "intersection", "difference", "symmetric_difference"})
ORDERED_FROM: Final = frozenset({"list", "tuple", "iter", "next", "enumerate", "zip", "map", "filter", "reversed"})
"""Builtins that show the order of what they are given."""
ORDER_FREE: Final = frozenset({"sorted", "set", "frozenset", "len", "min", "max", "sum", "any", "all"})
"""Builtins whose result does not depend on the order of what they are given."""

SWALLOWING: Final = frozenset({"BaseException", "BaseExceptionGroup", "GeneratorExit"})
SWALLOWING_OF_JIVSD: Final = ("Cancelled", "Frozen")

COROUTINES: Final = frozenset(
    {
        "step",
        "run",
        "map",
        "set_attributes",
        "sleep",
        "sleep_until",
        "wait_signal",
        "wait_until",
        "side_effect",
        "version",
    }
)
"""The Context's methods that must be awaited."""

INSTEAD: Final = {
    "sleep": "use `await ctx.sleep(...)`",
    "sleep_until": "use `await ctx.sleep_until(...)`",
    "open_nursery": "use `async with ctx.nursery()`",
    "TaskGroup": "use `async with ctx.nursery()`",
    "create_task_group": "use `async with ctx.nursery()`",
    "gather": "use `async with ctx.nursery()`",
    "fail_after": "use `with ctx.fail_after(...)`",
    "timeout": "use `with ctx.fail_after(...)`",
    "wait_for": "use `with ctx.fail_after(...)`",
    "move_on_after": "use `with ctx.move_on_after(...)`",
    "CancelScope": "use `with ctx.cancel_scope()` or `ctx.shield()`",
    "Event": "keep a flag and `await ctx.wait_until(...)`",
    "current_time": "use ctx.now()",
}
"""What replaces a thing of an async library, by its last name."""


def rule_for(origin: str) -> Rule | None:
    """The rule that calling this breaks."""
    parts = origin.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in ORIGINS:
            return ORIGINS[prefix]
    return None
