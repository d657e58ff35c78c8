"""The doctor: looks at a host, and says what to mend."""

from typing import TYPE_CHECKING, Annotated

import typer

from jivsd.cli.command import DataDir, group, local
from jivsd.cli.configuration import ConfigFile, read_config
from jivsd.cli.exits import Exit
from jivsd.cli.output import Answer

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.config import Config
    from jivsd.doctor import Finding

PANEL = "The daemon"

commands = group()


@local(commands, "doctor", "jivsd doctor", "jivsd doctor --config /etc/jivsd/jivsd.toml --json", panel=PANEL)
def doctor(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    store: Annotated[str | None, typer.Option(metavar="URL", help="Where the journal is, or is to be.")] = None,
    redis: Annotated[str | None, typer.Option(metavar="URL", help="Redis for the locks of several nodes.")] = None,
) -> Answer:
    """Look at this host: configuration, folders, database, Redis, clock, plugins, ports.

    Says how each is, and what mends it. Nothing is changed, but that the data folder is made. Exit code 1 if a daemon
    would not work.
    """
    import trio

    from jivsd.doctor import State

    settings = read_config(config, {"data_dir": data_dir, "store": store, "redis": redis})
    found = trio.run(_examined, settings)
    wrong = any(one.state is State.WRONG for one in found)
    return Answer({"items": found, "next": None}, lambda: _page(found), Exit.FAILED if wrong else Exit.OK)


async def _examined(config: "Config") -> "list[Finding]":
    from jivsd.doctor import examine

    return [finding async for finding in examine(config)]


def _page(found: "list[Finding]") -> "Page":
    from rich.text import Text

    from jivsd.cli import look

    styles = {"good": "green", "doubtful": "yellow", "wrong": "bold red"}
    table = look.table("WHAT", "STATE", "FINDING", "WHAT MENDS IT", wraps=("FINDING", "WHAT MENDS IT"))
    for one in found:
        table.add_row(one.what, Text(one.state, style=styles[one.state]), one.says, one.remedy)
    return [table]
