"""What `@step` and `@workflow` accept, and the sentence with which they refuse."""

from __future__ import annotations

import dataclasses
from collections import deque

import design_example
import msgspec
import pytest

from jivsd import Context, InvalidDefinition, Retry, StepContext, Transaction, query, signal, step, update, workflow
from jivsd.authoring.commands import child_call, step_call
from jivsd.clock import SECOND


class Order(msgspec.Struct):
    id: str
    amount: int = 1


@step
async def charge(ctx: StepContext, order: Order) -> int: ...


@workflow("order")
async def order(ctx: Context, order: Order) -> bool: ...


@workflow("pair", lock_key="{a}-{b}")
async def pair(ctx: Context, a: str, b: int = 2) -> None: ...


def test_the_design_example_registers_as_it_stands():
    move, copy = design_example.MoveTenant, design_example.copy
    assert (move.name, move.lock_key, move.lock_fields) == ("move-tenant", "tenant:{tenant}", ("tenant",))
    assert move.timeout == 7 * 24 * 3600 * SECOND
    assert (set(move.signals), set(move.queries)) == ({"approve"}, {"approved"})
    assert move.lock_key_of(move.signature.decode_input(b'{"tenant": "t1", "tables": []}')) == "tenant:t1"
    assert (copy.mode, copy.wants_context, copy.timeout) == ("async", True, 600 * SECOND)
    assert copy.retry == Retry(attempts=5, first="2s", factor=2, limit="10s")
    assert copy.compensation is design_example.drop
    assert design_example.drop.on_exhausted == "incident"
    assert design_example.nap.signature.decode_input(b"30") == (30.0,)


def test_each_run_has_an_instance_of_its_own():
    first, second = (design_example.MoveTenant.make().__self__ for _ in range(2))
    design_example.MoveTenant.signals["approve"].function(first, "ann")
    query = design_example.MoveTenant.queries["approved"].function
    assert (query(first), query(second)) == (True, False)


def test_modes_of_steps():
    @step
    def plain(n: int) -> int:
        return n + 1

    @step
    def plain_in_context(ctx: StepContext, n: int) -> int: ...

    @step(name="spend", cancel="wait")
    async def in_transaction(tx: Transaction, n: int) -> int: ...

    @step
    async def nothing() -> None: ...

    assert [(s.mode, s.skip, s.signature.names) for s in (plain, plain_in_context, in_transaction, nothing)] == [
        ("plain", 0, ("n",)),
        ("plain", 1, ("n",)),
        ("transaction", 1, ("n",)),
        ("async", 0, ()),
    ]
    assert (in_transaction.name, in_transaction.cancel) == ("spend", "wait")
    assert plain(1) == 2


def test_options_are_for_one_call():
    other = charge.options(name="recharge", timeout="1h", retry=Retry(attempts=9), cancel="wait")
    assert (other.name, other.timeout, other.retry.attempts, other.cancel) == ("recharge", 3600 * SECOND, 9, "wait")
    assert (charge.name, charge.timeout, charge.retry.attempts, charge.cancel) == ("charge", None, 3, "abandon")
    child = pair.options(id="p1", timeout=5, compensate=step(lambda result, a, b: None, name="undo"))
    assert (child.id, child.timeout, pair.id, pair.timeout) == ("p1", 5 * SECOND, None, None)
    assert child.options(id="p2").compensation is child.compensation


def test_commands_of_calls():
    call = step_call(charge, (Order("o1"),), {})
    assert (call.name, call.args) == ("charge", b'[{"id":"o1","amount":1}]')
    assert step_call(charge, (), {"order": Order("o1")}).args_hash == call.args_hash
    child = child_call(pair.options(id="p1", compensate=step(lambda r, a, b: None, name="undo")), ("x",), {})
    assert (child.workflow, child.input, child.workflow_id) == ("pair", b'{"a":"x","b":2}', "p1")
    assert child.compensation is not None
    assert child.compensation[1] == b'["x",2]'
    assert child_call("other", ({"a": 1},), {}).input == b'{"a":1}'
    for wrong in (lambda: step_call(test_commands_of_calls, (), {}), lambda: child_call(charge, (), {})):
        with pytest.raises(TypeError, match=r"ctx\.(step|run) takes a (function declared|workflow)"):
            wrong()


def test_lock_keys_from_several_parameters():
    assert pair.lock_fields == ("a", "b")
    assert pair.lock_key_of(("x", 2)) == "x-2"
    assert order.lock_key_of((Order("o"),)) is None


def test_handlers_are_inherited_and_overridden():
    class Base:
        @signal("go-on")
        def go(self) -> None: ...

        @query
        def state(self) -> str:
            return "base"

        async def run(self, ctx: Context) -> None: ...

    @workflow("derived")
    class Derived(Base):
        @query
        def state(self) -> str:
            return "derived"

    assert set(Derived.signals) == {"go-on"}
    assert Derived.queries["state"].function(Derived.make().__self__) == "derived"


def refusals():
    def register(name, /, **options):
        return lambda target: lambda: workflow(name, **options)(target)

    async def fine(ctx: Context, name: str) -> None: ...

    @register("w")
    def plain(ctx: Context) -> None: ...

    yield plain, "workflow 'w' needs an async function"

    @register("w")
    async def generator(ctx: Context):
        yield

    yield generator, "workflow 'w' needs an async function"

    @register("w")
    async def contextless() -> None: ...

    yield contextless, "workflow 'w': its first parameter is the Context"

    @register("w")
    async def forgotten(seconds: float) -> None: ...

    yield forgotten, "workflow 'w': its first parameter is the Context"

    @register("w")
    class Runless: ...

    yield Runless, r"workflow 'w' needs an `async def run\(self, ctx, ...\)`"

    @register("w")
    class Selfish:
        async def run(ctx: Context) -> None: ...

    yield Selfish, "workflow 'w': its first parameter is the Context"

    @register("w")
    class Demanding:
        def __init__(self, size: int) -> None: ...
        async def run(self, ctx: Context) -> None: ...

    yield Demanding, "workflow 'w': its class is made without arguments, but .*'size'"

    for mutable in ([], {}, set(), deque(), bytearray(), Order("x"), dataclasses.make_dataclass("D", ["x"])(1)):

        class Shared:
            state = mutable

            async def run(self, ctx: Context) -> None: ...

        kind = type(mutable).__name__
        yield register("w")(Shared), f"workflow 'w': class attribute 'state' is a mutable {kind}, shared by all runs"

    @register("w")
    class Asynchronous:
        @signal
        async def approve(self) -> None: ...

        async def run(self, ctx: Context) -> None: ...

    yield Asynchronous, "workflow 'w', signal 'approve': it is a plain method"

    @register("w")
    class Contextless:
        @update
        async def add(self, item: str) -> None: ...

        async def run(self, ctx: Context) -> None: ...

    yield Contextless, "workflow 'w', update 'add' is async, so its first parameter is the Context: `ctx: Context`"

    @register("w")
    class Generating:
        @update
        def add(self, item: str):
            yield item

        async def run(self, ctx: Context) -> None: ...

    yield Generating, "workflow 'w', update 'add': it is a method, plain or async: not static or a generator"

    @register("w")
    class Misjudging:
        @update
        async def add(self, ctx: Context, item: str, amount: int = 1) -> None: ...

        @add.validator
        def check(self, item: str) -> None: ...

        async def run(self, ctx: Context) -> None: ...

    yield Misjudging, "workflow 'w', update 'add': its validator takes the update's parameters: item, amount"

    @register("w")
    class Awaiting:
        @update
        def add(self) -> None: ...

        @add.validator
        async def check(self) -> None: ...

        async def run(self, ctx: Context) -> None: ...

    yield Awaiting, "workflow 'w', update 'add': its validator is a plain method"

    @register("w")
    class Twice:
        @update("add")
        def one(self) -> None: ...

        @update("add")
        def two(self) -> None: ...

        async def run(self, ctx: Context) -> None: ...

    yield Twice, "workflow 'w', update 'add' has two methods, 'one' and 'two'"

    @register("w")
    class Static:
        @query
        @staticmethod
        def state() -> int: ...

        async def run(self, ctx: Context) -> None: ...

    yield Static, "workflow 'w', query 'state': it is a plain method"

    @register("w")
    class Doubled:
        @signal("go")
        def one(self) -> None: ...

        @signal("go")
        def two(self) -> None: ...

        async def run(self, ctx: Context) -> None: ...

    yield Doubled, "workflow 'w', signal 'go' has two methods, 'one' and 'two'"

    @register("w", signals={"go": int})
    class Ambiguous:
        @signal
        def go(self) -> None: ...

        async def run(self, ctx: Context) -> None: ...

    yield Ambiguous, "workflow 'w', signal 'go' has a method"

    yield register("w", lock_key="t:{tenant}")(fine), r"lock_key names {tenant}, but the input's fields are: name"
    yield register("w", lock_key="t:{name.__class__}")(fine), r"lock_key names {name.__class__}"
    yield register("w", lock_key="t:{}")(fine), r"lock_key names {}"
    yield register("w", lock_key="t:{name")(fine), "lock_key 't:{name': expected '}'"
    yield register("w", lock_key="{name:>{width}}")(fine), "without a format"
    yield register("w", timeout="soon")(fine), "workflow 'w': timeout: 'soon' is not a duration"
    yield register("w", timeout=0)(fine), "workflow 'w': timeout is 0; it must be longer than nothing"
    yield register("w", signals={"go": object})(fine), "workflow 'w', signal 'go': object has no JSON form"
    yield register("a/b")(fine), "'a/b' cannot be a workflow's name"
    yield lambda: workflow(fine), r"@workflow needs a name: @workflow\(\"fine\"\)"

    async def work(ctx: StepContext, n: int) -> None: ...

    def lazily():
        yield 1

    def transacting(tx: Transaction) -> None: ...

    yield lambda: step(Order), "@step is for functions, not for"
    yield lambda: step(lazily), "step 'lazily' is a generator"
    yield lambda: step(transacting), "a transaction step is an async function"
    yield lambda: step(name="a#b")(work), "'a#b' cannot be a step's name"
    yield lambda: step(cancel="never")(work), "step 'work': cancel is 'never'; allowed: 'abandon', 'wait'"
    yield lambda: step(on_exhausted="cry")(work), "step 'work': on_exhausted is 'cry'; allowed: 'fail', 'incident'"
    yield lambda: step(retry=5)(work), r"step 'work': retry is 5; it is a Retry, such as Retry\(attempts=5\)"
    yield lambda: step(timeout=-1)(work), "step 'work': timeout is -1"
    yield lambda: step(work).options(timeout="x"), "step 'work': timeout: 'x' is not a duration"
    yield (
        lambda: step(work).compensate(work),
        r"step 'work' compensates step 'work', so it takes 2 arguments: the result \(or None\), then the arguments: n",
    )
    yield lambda: order.options(compensate=step(work)), "step 'work' compensates workflow 'order', so it takes 2"


REFUSALS = list(refusals())


@pytest.mark.parametrize(("declare", "message"), REFUSALS, ids=[message for _, message in REFUSALS])
def test_what_cannot_work_is_refused_in_one_sentence(declare, message):
    with pytest.raises(InvalidDefinition, match=message) as raised:
        declare()
    assert "\n" not in str(raised.value)


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="retires"):
        step(retires=5)(lambda: None)
