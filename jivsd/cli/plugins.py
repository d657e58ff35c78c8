"""Plugins: list the daemon's, load them again, move runs to new code, check a file or folder, write a new one."""

import shlex
import sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jivsd.cli.command import FLAG, group, local, remote
from jivsd.cli.exits import CommandError, Exit
from jivsd.cli.output import Answer
from jivsd.cli.values import read_which

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.client import Client

commands = group("List, reload, adopt, check or write plugins.")


@remote(commands, "list", "jivsd plugins list", "jivsd plugins list --json | jq '.items[] | select(.problem)'")
async def list_plugins(client: "Client") -> Answer:
    """List the daemon's plugins, their workflows, and why some were not loaded."""
    from jivsd.admin import wire

    plugins = await client.plugins()

    def view() -> "Page":
        from jivsd.cli import daemonpages

        return [daemonpages.plugins_table(plugins)]

    return Answer(wire.PluginPage(plugins), view)


@remote(commands, "reload", "jivsd plugins reload", "kill -HUP PID   # the same, without an answer")
async def reload(client: "Client") -> Answer:
    """Load the plugins again, for new runs.

    Open runs stay on the code they began with. A plugin that cannot be used as it is now keeps its version in use, and
    the exit code is 1.
    """
    reloaded = await client.reload_plugins()

    def view() -> "Page":
        from jivsd.cli import codepages

        return codepages.reloaded(reloaded)

    changed = [one.name for one in reloaded.plugins if one.change == "changed"]
    notes = [f"Move its open runs to the new code: jivsd plugins adopt {name} --dry-run" for name in changed]
    return Answer(reloaded, view, Exit.FAILED if reloaded.problems else Exit.OK, notes)


@remote(
    commands,
    "adopt",
    "jivsd plugins adopt orders --dry-run",
    "jivsd plugins adopt orders --runs order:A-4711",
    "jivsd plugins adopt orders --runs workflow=order,status=BLOCKED --json",
)
async def adopt(
    client: "Client",
    name: Annotated[str, typer.Argument(metavar="NAME", help="The plugin's name.", show_default=False)],
    runs: Annotated[
        str | None,
        typer.Option(metavar="FILTER", help="Only a RUN, or workflow=W,id=ID,status=S,parent=RUN (one or more)."),
    ] = None,
    additions: Annotated[
        bool, typer.Option("--additions", metavar=FLAG, help="Also where the new code asks for more.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", metavar=FLAG, help="Move nothing; only say what fits.")] = False,
) -> Answer:
    """Move open runs to the newest code of their plugin, where that does what theirs has done.

    Old and new code are run over the journal of each run, without doing anything, and must ask for the same: the same
    steps, timers, signals and children, with the same arguments, those under way included. The others stay on their
    code and go on; the exit code is 1 if there are any. Can be repeated.
    """
    from jivsd.engine.api import Move, Moves

    which = read_which(runs)
    items: list[Move] = []
    cursor: str | None = None
    while True:
        page = await client.adopt_code(name, which, dry_run=dry_run, additions=additions, cursor=cursor)
        items += page.items
        if (cursor := page.next) is None:
            break
    moves = Moves(page.plugin, page.code_hash, items, None)

    def view() -> "Page":
        from jivsd.cli import codepages

        return codepages.moves(moves)

    stay = any(move.state in ("stays", "busy") for move in items)
    return Answer(moves, view, Exit.FAILED if stay else Exit.OK)


@local(commands, "check", "jivsd plugins check plugins/orders.py", "jivsd plugins check plugins")
def check(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A plugin, or a folder of them.", show_default=False)],
) -> Answer:
    """Check plugins before a daemon runs them.

    Loads them, and reads their workflows for what a replay would not do again in the same way. Exit code 1 if anything
    is found; a line with the comment `# jivsd: ignore` is left alone.
    """
    from jivsd.registry.checkup import check_path

    if not path.exists():
        raise CommandError(Exit.NOT_FOUND, "no_file", f"there is no plugin {str(path)!r}")
    with redirect_stdout(sys.stderr):  # a plugin may print while it is loaded
        findings = check_path(path)

    def view() -> "Page":
        from jivsd.cli import daemonpages

        return [daemonpages.findings(findings)] if findings else [f"Nothing is wrong with {path}."]

    return Answer({"ok": not findings, "findings": findings}, view, Exit.FAILED if findings else Exit.OK)


@local(commands, "new", "jivsd plugins new orders", "jivsd plugins new orders --folder ~/jivsd-plugins")
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The plugin's name.", show_default=False)],
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where to write it.")] = Path("plugins"),
) -> Answer:
    """Write a plugin that works, with a test, to begin from."""
    from jivsd.registry.template import CannotCreate, new_plugin

    try:
        plugin, test = new_plugin(name, folder)
    except CannotCreate as error:
        raise CommandError(Exit.INVALID, "cannot_create", str(error)) from None
    python = shlex.quote(sys.executable)
    first = "" if find_spec("pytest") else f" (first: pip --python {python} install pytest)"
    notes = [
        f"Test it:  {python} -m pytest {test}{first}",
        f"Check it: jivsd plugins check {plugin}",
        f"Run it:   jivsd run --plugins {folder}",
    ]
    return Answer({"files": [str(plugin), str(test)]}, lambda: [str(plugin), str(test)], notes=notes)
