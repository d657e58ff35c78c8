"""What all commands have in common: their options, reaching the daemon, printing the answer, examples in the help."""

from __future__ import annotations

import inspect
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Final, ParamSpec, TypeAlias, TypeVar

import typer

from jivsd.cli.exits import CommandError, Exit, exit_for
from jivsd.cli.output import Answer, give
from jivsd.records import Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jivsd.client import Client

P = ParamSpec("P")
T = TypeVar("T")
Asking: TypeAlias = "Callable[Concatenate[Client, P], Awaitable[Answer]]"
"""A command's function that asks the daemon."""

KEYWORD: Final = inspect.Parameter.KEYWORD_ONLY

BROKEN_PIPE: Final = 141
"""How a shell reports a program that SIGPIPE ended: `jivsd list | head` is no failure of ours."""


def complete_status(incomplete: str) -> list[str]:
    """The statuses that begin like that, for shell completion; in the case in which it was begun."""
    names = [status.lower() if incomplete.islower() else status.value for status in Status]
    return [name for name in names if name.startswith(incomplete)]


FLAG: Final = ""
"""The metavar of a flag: Typer's own is <bool>, and a flag takes no value."""

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="The daemon's data folder. Default: $JIVSD_DATA_DIR."),
]
Json = Annotated[bool, typer.Option("--json", metavar=FLAG, help="Print JSON, for programs.")]
RunRef = Annotated[
    str, typer.Argument(metavar="RUN", help="A run id, WORKFLOW:ID, or WORKFLOW:@newest.", show_default=False)
]
Statuses = Annotated[
    list[str] | None,
    typer.Option(
        "--status",
        metavar="STATUS",
        help="Only in this status, e.g. FAILED; can be given several times.",
        autocompletion=complete_status,
    ),
]
Attributes = Annotated[
    list[str] | None,
    typer.Option("--attribute", metavar="NAME=VALUE", help="By which runs are found; can be given several times."),
]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")]
Cursor = Annotated[str | None, typer.Option("--cursor", metavar="C", help="Go on where a page ended: its `next`.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is recorded.")]


@dataclass
class Globals:
    """What is said before the command's name."""

    data_dir: Path | None = None
    debug: bool = False


def group(help: str | None = None, epilog: str | None = None) -> typer.Typer:
    """A group of commands, or all of them."""
    return typer.Typer(help=help, epilog=epilog, no_args_is_help=True, rich_markup_mode="rich")


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\n".join(["[bold]Examples[/bold]", *(f"$ {line}".replace("[", r"\[") for line in lines)])


def prose(function: Callable[..., Any]) -> str:
    """A function's docstring as text that may be broken anywhere, a line for each paragraph."""
    return "\n\n".join(" ".join(part.split()) for part in (inspect.getdoc(function) or "").split("\n\n"))


def local(
    app: typer.Typer, name: str, *shown: str, panel: str | None = None
) -> Callable[[Callable[P, Answer]], Callable[P, Answer]]:
    """Register a command that needs no daemon. It can have a parameter `data_dir: DataDir`; `--json` it always has."""

    def register(function: Callable[P, Answer]) -> Callable[P, Answer]:
        _register(app, name, function, list(inspect.signature(function).parameters.values()), shown, panel)
        return function

    return register


def remote(app: typer.Typer, name: str, *shown: str, panel: str | None = None) -> Callable[[Asking[P]], Asking[P]]:
    """Register a command that asks the daemon: its first parameter is the connected client."""

    def register(function: Asking[P]) -> Asking[P]:
        def connect_and_call(data_dir: Path | None, **arguments: Any) -> Answer:
            async def use(client: Client) -> Answer:
                return await function(client, **arguments)  # pyright: ignore[reportCallIssue]  # matched by its signature

            return ask(data_dir, use)

        connect_and_call.__doc__ = function.__doc__
        parameters = list(inspect.signature(function).parameters.values())[1:]
        data_dir = inspect.Parameter("data_dir", KEYWORD, default=None, annotation=DataDir)
        _register(app, name, connect_and_call, [*parameters, data_dir], shown, panel)
        return function

    return register


def ask(data_dir: Path | None, use: Callable[[Client], Awaitable[T]]) -> T:
    """Connect to the daemon of a data folder, do something with the client, and return its result.

    Raises:
        CommandError: no daemon answers, or it refuses.
    """
    import trio

    from jivsd.client import Client, ClientError, ConnectionLost, DaemonNotRunning
    from jivsd.places import ConfigError

    async def connected() -> T:
        async with Client.connect(data_dir) as client:
            return await interruptibly(partial(use, client))

    try:
        return trio.run(connected)
    except ConnectionLost as error:
        hint = "It may or may not have done what you asked; look before you ask again."
        raise CommandError(Exit.NOT_RUNNING, "connection_lost", str(error), hint=hint) from None
    except DaemonNotRunning as error:
        raise CommandError(Exit.NOT_RUNNING, "not_running", str(error)) from None
    except ClientError as error:
        raise CommandError(exit_for(error.status), error.code, error.message, data=error.data) from None
    except ConfigError as error:
        raise CommandError(Exit.INVALID, "config", str(error)) from None


async def interruptibly(work: Callable[[], Awaitable[T]]) -> T:
    """Do it until Ctrl-C, which cancels it where it awaits; in the middle of a line it could leave a lock locked.

    A shell has its jobs in the background ignore Ctrl-C: so they do.
    """
    import signal

    import trio

    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        return await work()

    async def listen() -> None:
        async for _signal in interrupts:
            nursery.cancel_scope.cancel()

    failures: list[Exception] = []
    with trio.open_signal_receiver(signal.SIGINT) as interrupts:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            try:
                return await work()
            except Exception as error:  # out of the nursery as it is, not in a group
                failures.append(error)
            finally:
                nursery.cancel_scope.cancel()
    for failure in failures:
        raise failure
    raise KeyboardInterrupt


def _register(
    app: typer.Typer,
    name: str,
    function: Callable[..., Answer],
    parameters: list[inspect.Parameter],
    shown: tuple[str, ...],
    panel: str | None,
) -> None:
    """Hand Typer a function that has the command's parameters and `--json`, and prints the answer."""
    names = {parameter.name for parameter in parameters}

    def command(context: typer.Context, **arguments: Any) -> int:
        json = arguments["json"] if "json" in names else arguments.pop("json")
        if "data_dir" in names:
            arguments["data_dir"] = arguments["data_dir"] or context.ensure_object(Globals).data_dir
        try:
            answer = function(**arguments)
            give(answer, json=json)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return BROKEN_PIPE
        return answer.exit_code

    context = inspect.Parameter("context", KEYWORD, annotation=typer.Context)
    json = inspect.Parameter("json", KEYWORD, default=False, annotation=Json)
    own = [parameter.replace(kind=KEYWORD) for parameter in parameters]
    own = [context, *own] if "json" in names else [context, *own, json]
    command.__signature__ = inspect.Signature(own)  # pyright: ignore[reportFunctionMemberAccess]  # see PEP 362
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in own}
    app.command(name, help=prose(function), epilog=examples(*shown), rich_help_panel=panel)(command)
