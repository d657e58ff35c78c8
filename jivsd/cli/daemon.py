"""The daemon: run, status, version."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jivsd import memory, openfiles
from jivsd.cli.command import DataDir, Globals, examples, group, local, prose, remote
from jivsd.cli.configuration import ConfigFile, read_config
from jivsd.cli.output import Answer

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.client import Client

PANEL = "The daemon"

commands = group()


def run(
    context: typer.Context,
    data_dir: DataDir = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where the journal is. Default: a file in the data folder."),
    ] = None,
    redis: Annotated[str | None, typer.Option(metavar="URL", help="Redis for the locks of several nodes.")] = None,
    node: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Its name among those that share a database. Default: the host's."),
    ] = None,
    plugins: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="A folder with plugins; can be given several times.")
    ] = None,
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Serve HTTP there too, besides the Unix socket.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Run so many processes; they need a PostgreSQL store.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(metavar="FORMAT", help="json, text, or auto.")] = None,
    config: ConfigFile = None,
) -> int:
    """Run the daemon.

    Runs that were open when it last ended go on. The bundled plugins are always there. SIGTERM or Ctrl-C lets the
    running steps end; a second Ctrl-C ends it at once.
    """
    flags = {
        "data_dir": data_dir or context.ensure_object(Globals).data_dir,
        "store": store,
        "redis": redis,
        "node": node,
        "plugins": plugins,
        "http": http,
        "workers": workers,
        "log.level": log_level,
        "log.format": log_format,
    }
    settings = read_config(config, flags)
    openfiles.raise_limit()
    if settings.workers > 1:
        from jivsd import workers as several

        return several.run(settings)
    memory.hold_off()
    from jivsd import daemon

    return daemon.run(settings)


commands.command(
    "run",
    help=prose(run),
    epilog=examples(
        "jivsd run --data-dir ./state",
        "jivsd run --data-dir ./state --plugins ./plugins --http 127.0.0.1:8700",
        "jivsd run --config /etc/jivsd/jivsd.toml",
    ),
    rich_help_panel=PANEL,
)(run)


@remote(commands, "status", "jivsd status", "jivsd status --json | jq .runs.RUNNING", panel=PANEL)
async def status(client: "Client") -> Answer:
    """Show the daemon in one page."""
    from jivsd.admin import wire

    found = await client.status()

    def view() -> "Page":
        from jivsd.cli import daemonpages

        return daemonpages.status(found)

    return Answer(wire.StatusView.of(found), view)


@local(commands, "version", "jivsd version --json", panel=PANEL)
def version() -> Answer:
    """Show the version of jivsd."""
    from importlib.metadata import version
    from platform import python_version

    number = version("jivsd")
    return Answer({"version": number, "python": python_version()}, lambda: [f"jivsd {number}"])
