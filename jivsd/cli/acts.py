"""Talking to runs: signal, update, query."""

from typing import TYPE_CHECKING, Annotated

import typer

from jivsd.cli import filters, steering
from jivsd.cli.command import RunRef, group, remote
from jivsd.cli.exits import CommandError, Exit
from jivsd.cli.output import Answer
from jivsd.cli.values import check_duration, read_value

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.client import Client

PANEL = "Act on runs"
VALUE_HELP = "JSON, @FILE, or - for standard input."

Payload = Annotated[str | None, typer.Argument(metavar="[JSON]", help=VALUE_HELP, show_default=False)]
PayloadOption = Annotated[str | None, typer.Option("--input", metavar="JSON", help="The same, as an option.")]

commands = group()


@remote(
    commands,
    "signal",
    "jivsd signal move-tenant:acme approve '\"ann\"'",
    "jivsd signal RUN received @parcel.json --message-id parcel-4711",
    "jivsd signal approve '\"ann\"' --workflow move-tenant --message-id approved-by-ann",
    panel=PANEL,
)
async def signal(
    client: "Client",
    run: Annotated[str, typer.Argument(metavar="RUN", help="Which run; left out with a filter.", show_default=False)],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The signal's name.", show_default=False)] = None,
    payload: Payload = None,
    payload_option: PayloadOption = None,
    message_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Sent again with the same id, it is taken once.")
    ] = None,
    everything: filters.Everything = False,
    workflow: filters.OfWorkflow = None,
    status: filters.OfStatus = None,
    attribute: filters.OfAttribute = None,
    parent: filters.OfParent = None,
    dry_run: filters.DryRun = False,
    yes: filters.Yes = False,
) -> Answer:
    """Send a signal to a run, or to many.

    It is durable once this command has said so.
    """
    import msgspec

    from jivsd.engine.api import Act

    times = None, None, None, None
    where = filters.read_filter(everything, workflow, status, attribute, parent, times)
    if where is not None:
        if payload is not None:
            raise CommandError(Exit.USAGE, "usage", "give a RUN or a filter, not both")
        value = msgspec.Raw(_payload(name, payload_option))
        act = Act("signal", "", run, value, message_id)
        return await steering.many(client, act, where, dry_run=dry_run, yes=yes)
    if name is None:
        raise CommandError(Exit.USAGE, "usage", "which signal? Give RUN and NAME, or NAME and a filter")
    value = _payload(payload, payload_option)
    receipt = await client.signal(run, name, value, message_id=message_id)

    def view() -> "Page":
        seen = " (seen before: nothing more happens)" if receipt.duplicate else ""
        return [f"Run {receipt.run_id} has the signal {name!r}, message {receipt.message_id}{seen}."]

    return Answer(receipt, view, notes=[f"Note: {receipt.note}."] if receipt.note else [])


@remote(
    commands,
    "update",
    'jivsd update order:4711 add \'{"item": "lamp"}\'',
    "jivsd update RUN approve '\"ann\"' --message-id approval-1 --wait 5m",
    panel=PANEL,
)
async def update(
    client: "Client",
    run: RunRef,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The update's name.", show_default=False)],
    payload: Payload = None,
    payload_option: PayloadOption = None,
    message_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Sent again with the same id, it is answered as it was.")
    ] = None,
    wait: Annotated[str, typer.Option(metavar="TIME", help="How long to wait for the answer.")] = "1m",
) -> Answer:
    """Send an update to a run and print its answer.

    It is durable once this command has said so, also when there is no answer yet.
    """
    check_duration(wait, "--wait")
    value = _payload(payload, payload_option)
    updated = await client.update(run, name, value, message_id=message_id, wait=wait)

    def view() -> "Page":
        from jivsd.cli import look

        if updated.answered:
            return [look.value_text(updated.value, limit=None)]
        return [f"Run {updated.run_id} has the update {name!r}, message {updated.message_id}, and works on it."]

    again = f"Ask for the answer: jivsd update {updated.run_id} {name} --message-id {updated.message_id}"
    return Answer(updated, view, notes=[] if updated.answered else [again])


@remote(
    commands,
    "query",
    "jivsd query migration:crm-to-erp progress",
    "jivsd query RUN price '{\"item\": 7}' --json | jq .value",
    panel=PANEL,
)
async def query(
    client: "Client",
    run: RunRef,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The query's name.", show_default=False)],
    payload: Payload = None,
    payload_option: PayloadOption = None,
) -> Answer:
    """Ask a run a question.

    The answer is a JSON value; a run also answers after its end.
    """
    answer = await client.query(run, name, _payload(payload, payload_option))

    def view() -> "Page":
        from jivsd.cli import look

        return [look.value_text(answer.value, limit=None)]

    return Answer(answer, view)


def _payload(argument: str | None, option: str | None) -> bytes:
    if argument is not None and option is not None:
        raise CommandError(Exit.USAGE, "usage", "the payload is given twice: as an argument and as --input")
    return read_value(option if argument is None else argument, "JSON" if option is None else "--input")
