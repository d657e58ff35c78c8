"""Starting a run, and watching it until it has ended: start, wait."""

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from jivsd.cli.command import FLAG, Attributes, Json, RunRef, group, remote
from jivsd.cli.exits import CommandError, Exit
from jivsd.cli.output import Answer, say
from jivsd.cli.values import attribute_values, read_time, read_value
from jivsd.records import Run, Status

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.client import Client, ClientError

PANEL = "Start runs"

commands = group()


@remote(
    commands,
    "start",
    "jivsd start nap --input 5 --wait",
    "jivsd start migration --id crm-to-erp --input @migration.json",
    'jivsd start move-tenant --input \'{"tenant": "acme", "tables": ["orders"]}\' --idempotency-key ticket-4711',
    "RUN=$(jivsd start nap --input 5)",
    "jivsd start nap --input 5 --delay 1h30m",
    "jivsd start nap --bulk naps.jsonl --delay 0s",
    panel=PANEL,
)
async def start(
    client: "Client",
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow's name.", show_default=False)],
    value: Annotated[
        str | None,
        typer.Option("--input", metavar="JSON", help="The input: JSON, @FILE, or - for standard input."),
    ] = None,
    id: Annotated[
        str | None, typer.Option(metavar="ID", help="The workflow id, your own key for the matter. Default: a new one.")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Started again with the same key, it is the same run.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", metavar=FLAG, help="Watch the run until it has ended.")] = False,
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help="How long the run may take, e.g. 30m.")] = None,
    lock_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Runs with one lock key exclude each other.")
    ] = None,
    lock_wait: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long to wait for the lock; 0s: refuse at once.")
    ] = None,
    correlation_id: Annotated[str | None, typer.Option(metavar="ID", help="Appears in logs and child runs.")] = None,
    priority: Annotated[
        int,
        typer.Option(metavar="N", help="From -100 to 100: where there is too little room, the higher goes first."),
    ] = 0,
    delay: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Begin so much later, e.g. 5m; 0s: when there is room, but accept it now."),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Begin at a time, e.g. 2026-12-24T18:00; local without an offset."),
    ] = None,
    attribute: Attributes = None,
    bulk: Annotated[
        str | None,
        typer.Option("--bulk", metavar="FILE", help='Start many: JSON lines like {"input": 5, "id": "a"}; - is stdin.'),
    ] = None,
    json: Json = False,
) -> Answer:
    """Start a run of a workflow, or many.

    It is durable once this command has printed its run id.
    """
    from jivsd.client import ClientError
    from jivsd.engine.api import StartOptions

    options = StartOptions(
        id=id,
        idempotency_key=idempotency_key,
        correlation_id=correlation_id,
        lock_key=lock_key,
        lock_wait=lock_wait,
        timeout=timeout,
        priority=priority,
        delay=delay,
        start_at=None if at is None else read_time(at, "--at"),
        attributes=attribute_values(attribute),
    )
    if bulk is not None:
        from jivsd.cli.bulk import start_many

        if value is not None or wait or id is not None or idempotency_key is not None:
            message = "--bulk goes without --input, --id, --idempotency-key and --wait: the lines of the file say them"
            raise CommandError(Exit.USAGE, "usage", message)
        return await start_many(client, workflow, bulk, options)
    try:
        started = await client.start(workflow, read_value(value, "--input"), options)
    except ClientError as error:
        if error.code == "invalid" and "invalid input" in error.message:
            raise await _told_what_it_takes(client, workflow, error) from None
        if error.code != "not_found":
            raise
        known = ", ".join(info.name for info in await client.workflows())
        unusable = [f"\nNot usable: {plugin.problem}" for plugin in await client.plugins() if plugin.problem]
        hint = f"Workflows: {known or 'none'}{''.join(unusable)}"
        raise CommandError(Exit.NOT_FOUND, error.code, error.message, hint=hint) from None
    run = started.run
    if wait:
        return _ended(await _watch(client, run, quiet=json), existing=started.existing)

    def view() -> "Page":
        return [run.run_id]

    again = "was started before under this idempotency key; it" if started.existing else "is accepted and"
    notes = [
        f"{run.workflow}:{run.workflow_id} {again} is {run.status}.",
        f"Watch it: jivsd wait {run.run_id}",
    ]
    return Answer(_document(run, existing=started.existing), view, notes=notes)


@remote(commands, "wait", "jivsd wait migration:crm-to-erp", "jivsd wait RUN --json | jq .output", panel=PANEL)
async def wait(client: "Client", run: RunRef, json: Json = False) -> Answer:
    """Watch a run until it has ended.

    Ctrl-C ends the watching, not the run. Exit code 0 only if it has COMPLETED.
    """
    return _ended(await _watch(client, await client.show(run), quiet=json))


async def _watch(client: "Client", run: Run, *, quiet: bool) -> Run:
    import trio

    from jivsd.cli.watching import watch

    try:
        return await watch(client, run, quiet=quiet)
    except trio.Cancelled:
        if not quiet:
            say(f"The run goes on without you. Watch it again: jivsd wait {run.run_id}")
        raise


async def _told_what_it_takes(client: "Client", workflow: str, error: "ClientError") -> CommandError:
    from jivsd.cli.outline import outline

    takes = [outline(info.input_schema) for info in await client.workflows() if info.name == workflow]
    hint = f"Its --input: {takes[0]}" if takes else None
    return CommandError(Exit.INVALID, error.code, error.message, hint=hint)


def _ended(run: Run, **more: Any) -> Answer:
    def view() -> "Page":
        from jivsd.cli import runpages

        return runpages.outcome(run)

    exit_code = Exit.OK if run.status is Status.COMPLETED else Exit.FAILED
    notes = [] if exit_code is Exit.OK else [f"What happened: jivsd timeline {run.run_id}"]
    return Answer(_document(run, **more), view, exit_code, notes)


def _document(run: Run, **more: Any) -> dict[str, Any]:
    """A run as `jivsd show --json` has it, and something beside it."""
    from jivsd.admin import wire

    fields = msgspec.structs.asdict(wire.RunView.of(run))
    return {name: value for name, value in fields.items() if value is not msgspec.UNSET} | more
