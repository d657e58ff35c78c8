"""All commands of `jivsd`, put together."""

from typing import Annotated

import typer

from jivsd.cli import (
    acts,
    configuration,
    daemon,
    database,
    doctor,
    exporting,
    incidents,
    locks,
    nodes,
    outbox,
    plugins,
    proof,
    pruning,
    quarantine,
    runs,
    starting,
    statistics,
    steering,
    torture,
    watch,
)
from jivsd.cli.command import FLAG, DataDir, Globals, group
from jivsd.cli.exits import MEANINGS

EPILOG = "\n".join(
    [
        "[bold]First steps[/bold]",
        "  jivsd run --data-dir ./state        start the daemon; leave it running",
        "  export JIVSD_DATA_DIR=./state       so that the other commands find it",
        "  jivsd start nap --input 5 --wait    run a workflow, and watch it",
        "  jivsd list                          what runs, and what has run",
        "",
        "[bold]Exit codes[/bold]",
        *(f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items()),
        "",
        "With --json, results are printed on stdout, an error as one object on stderr:",
        '  {"error": {"code": …, "message": …}}',
        r'Every list is {"items": \[…], "next": cursor or null}.',
    ]
)

app = group("jivsd runs workflows that must not be lost.", epilog=EPILOG)


@app.callback()
def root(
    context: typer.Context,
    data_dir: DataDir = None,
    debug: Annotated[bool, typer.Option("--debug", metavar=FLAG, help="Show the traceback of an error.")] = False,
) -> None:
    given = context.ensure_object(Globals)
    given.data_dir = data_dir
    given.debug = debug


for module in (
    daemon,
    doctor,
    nodes,
    starting,
    runs,
    statistics,
    locks,
    exporting,
    acts,
    steering,
    watch,
    pruning,
    proof,
    torture,
):
    app.add_typer(module.commands)
for name, module in (
    ("incidents", incidents),
    ("outbox", outbox),
    ("quarantine", quarantine),
    ("plugins", plugins),
    ("config", configuration),
    ("db", database),
):
    app.add_typer(module.commands, name=name, rich_help_panel="The daemon")
