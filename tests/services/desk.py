"""The plugin for tests of what is asked for in SQL."""

from __future__ import annotations

from jivsd import Context, StepContext, signal, step, workflow

begun: list[int] = []


@step
async def begin(ctx: StepContext, words: int) -> None:
    begun.append(words)


@workflow("sale")
class Sale:
    def __init__(self) -> None:
        self.said: list[str] = []

    @signal
    def say(self, word: str) -> None:
        self.said.append(word)

    async def run(self, ctx: Context, words: int) -> list[str]:
        await ctx.step(begin, words)
        await ctx.wait_until(lambda: len(self.said) >= words)
        return self.said
