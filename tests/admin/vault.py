"""Workflows with secrets, for tests."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from jivsd import NO_RETRY, Context, Failure, Secret, StepContext, query, signal, step, update, workflow


class Login(msgspec.Struct):
    user: str
    password: Annotated[str, Secret]


class Token(msgspec.Struct):
    text: Annotated[str, Secret]
    days: int = 1


@step
async def log_in(ctx: StepContext, login: Login) -> Token:
    return Token(f"token-of-{login.user}")


@step(retry=NO_RETRY)
async def refuse(ctx: StepContext, password: str) -> None:
    raise Failure(f"the password {password!r} is wrong", tried=[password])


@step(retry=NO_RETRY, on_exhausted="incident")
async def stick(ctx: StepContext, password: str) -> None:
    raise Failure(f"stuck with {password}")


@step
async def repeat(ctx: StepContext, text: str) -> Any:
    return {"said": f"<{text}>"}


@workflow("vault")
class Vault:
    pin: str = ""
    login: Login | None = None

    @signal
    def enter(self, pin: Annotated[str, Secret]) -> None:
        self.pin = pin

    @query
    def current(self) -> Login | None:
        return self.login

    @update
    def swap(self, login: Login) -> Token:
        return Token(f"swapped-for-{login.password}")

    async def run(self, ctx: Context, login: Login, how: str = "well") -> Token:
        self.login = login
        token = await ctx.step(log_in, login)
        await ctx.step(repeat, login.password)
        await ctx.wait_until(lambda: self.pin)
        await ctx.step(repeat, self.pin)
        if how == "refused":
            await ctx.step(refuse, login.password)
        if how == "stuck":
            await ctx.step(stick, login.password)
        return token


@workflow("owner")
async def owner(ctx: Context, user: str) -> str:
    child = await ctx.run(Child, Login(user, "hidden-in-child"))
    return child.text


@workflow("child")
class Child:
    async def run(self, ctx: Context, login: Login) -> Token:
        return Token("the-child-s-token")
