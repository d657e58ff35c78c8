"""Workflows that are asked, that publish, let runs go, go on as new, and wait for a person, for the golden journals.

Never change one of them: add another.
"""

from __future__ import annotations

from jivsd import (
    NO_RETRY,
    ChildFailed,
    Context,
    Failure,
    NotDelivered,
    Retry,
    TimedOut,
    query,
    signal,
    step,
    update,
    workflow,
)


@step
async def weigh(word: str) -> int:
    return len(word)


@step(retry=NO_RETRY, on_exhausted="incident")
async def ask(question: str) -> int | None:
    raise Failure("nobody knows", question=question)


@workflow("golden-basket")
class Basket:
    """Updates: plain and async ones, refused by a validator, failed in their handler."""

    def __init__(self) -> None:
        self.goods: list[str] = []
        self.weight = 0

    @update
    def put(self, word: str) -> int:
        self.goods.append(word)
        return len(self.goods)

    @put.validator
    def may_put(self, word: str) -> None:
        if word in self.goods:
            raise ValueError(f"{word} is there")

    @update
    async def weigh_all(self, ctx: Context, patience: float) -> int:
        self.weight = sum(await ctx.map(weigh, self.goods))
        await ctx.sleep(patience)
        if not self.weight:
            raise Failure("there is nothing")
        return self.weight

    async def run(self, ctx: Context) -> list[str]:
        await ctx.wait_until(lambda: self.weight > 0)
        return self.goods


@workflow("golden-news")
async def news(ctx: Context, words: list[str]) -> list[int]:
    """Published events, attributes, maps over a step and over a function."""
    await ctx.set_attributes(words=len(words), first=words[0])
    await ctx.emit("begun", {"words": words})

    async def tell(word: str) -> int:
        await ctx.emit(f"word/{word}")
        return await ctx.step(weigh, word)

    told = await ctx.map(tell, words, name="tell", key=str, limit=2)
    weighed = await ctx.map(weigh, words)
    await ctx.set_attributes(first=None, told=len(told), region=str(ctx.attributes["words"]))
    return told + weighed


@workflow("golden-pen-friend", signals={"letter": str})
class PenFriend:
    """What is let go: it is told something, and tells somebody."""

    def __init__(self) -> None:
        self.read: list[str] = []

    @signal
    def note(self, what: str) -> None:
        self.read.append(what)

    async def run(self, ctx: Context, home: str) -> list[str]:
        letter = await ctx.wait_signal("letter", str)
        await ctx.signal(home, "answer", letter.upper())
        return [*self.read, letter]


@workflow("golden-writer")
async def writer(ctx: Context) -> list[str]:
    """Lets a run go, writes to it and gets an answer; a run that is refused, and letters that do not arrive."""
    friend = await ctx.start_child(PenFriend.options(id="friend"), ctx.run_id)
    said = [await _refusal(ctx, friend)]
    await ctx.signal(friend, "note", "dear")
    await ctx.signal("golden-pen-friend:friend", "letter", "hello")
    said.append(await ctx.wait_signal("answer", str, timeout="1h"))
    return said


async def _refusal(ctx: Context, friend: str) -> str:
    said: list[str] = []
    try:
        await ctx.start_child(PenFriend.options(id="friend"), "nobody")
    except ChildFailed:
        said.append("taken")
    try:
        await ctx.signal(friend, "letter", 5)
    except NotDelivered as error:
        said.append(error.data["code"])
    return " ".join(said)


@workflow("golden-rounds", timeout="30d")
class Rounds:
    """Goes on as new for each line; what it has not read goes along."""

    @query
    def nothing(self) -> None: ...

    async def run(self, ctx: Context, book: list[str], to: int) -> list[str]:
        line = await ctx.wait_signal("line", str)
        await ctx.set_attributes(lines=len(book) + 1)
        await ctx.sleep("1h")
        if len(book) + 1 < to:
            await ctx.continue_as_new([*book, line], to)
        return [*book, line]


@workflow("golden-patience")
class Patience:
    """Waits that end by themselves, and some that do not have to."""

    def __init__(self) -> None:
        self.called = 0

    @signal
    def call(self) -> None:
        self.called += 1

    async def run(self, ctx: Context) -> list[str]:
        said: list[str] = []
        for limit in ("10s", "2h"):
            try:
                said.append(await ctx.wait_signal("word", str, timeout=limit))
            except TimedOut:
                said.append(f"no word in {limit}")
            try:
                said.append(str(await ctx.wait_until(lambda: self.called, timeout=limit)))
            except TimedOut:
                said.append(f"no call in {limit}")
        return said


@workflow("golden-questions")
async def questions(ctx: Context) -> list[int | None]:
    """Steps that a person decides."""
    return [await ctx.step(ask.options(name=name), name) for name in ("answered", "skipped")]


LINE = {"up": True}


@step(retry=Retry(attempts=2, first="1s"), on_exhausted="incident")
async def ring(number: str) -> str:
    if not LINE["up"]:
        raise Failure("the line is down", number=number)
    return f"{number} says hello"


@workflow("golden-ringing")
async def ringing(ctx: Context) -> list[str]:
    """A step that a person has tried again, once the world is mended and once too early."""
    return [await ctx.step(ring, "555"), await ctx.step(ring, "777")]
