"""Acting on runs: signal, update, query, pause, resume, cancel, terminate, retry."""

from typing import TYPE_CHECKING, Annotated

import typer

from jivsd.cli.command import Reason, RunRef, group, remote
from jivsd.cli.exits import CommandError, Exit
from jivsd.cli.output import Answer
from jivsd.cli.values import check_duration, read_value

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jivsd.cli.output import Page
    from jivsd.client import Client
    from jivsd.records import Run

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
    panel=PANEL,
)
async def signal(
    client: "Client",
    run: RunRef,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The signal's name.", show_default=False)],
    payload: Payload = None,
    payload_option: PayloadOption = None,
    message_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Sent again with the same id, it is taken once.")
    ] = None,
) -> Answer:
    """Send a signal to a run.

    It is durable once this command has said so.
    """
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


@remote(commands, "pause", "jivsd pause RUN --reason 'maintenance of the target'", panel=PANEL)
async def pause(client: "Client", run: RunRef, reason: Reason = "") -> Answer:
    """Pause a run.

    Its running steps end, then nothing more starts until it is resumed.
    """
    return await _act(client.pause, run, reason, "is paused" if not reason else f"is paused: {reason}")


@remote(commands, "resume", "jivsd resume RUN", panel=PANEL)
async def resume(client: "Client", run: RunRef, reason: Reason = "") -> Answer:
    """Let a paused run go on."""
    return await _act(client.resume, run, reason, "goes on")


@remote(commands, "cancel", "jivsd cancel RUN --reason 'the order was withdrawn'", panel=PANEL)
async def cancel(client: "Client", run: RunRef, reason: Reason = "") -> Answer:
    """Stop a run and undo what it did (compensate)."""
    return await _act(client.cancel, run, reason, "is asked to stop and to undo what it did")


@remote(commands, "terminate", "jivsd terminate RUN --reason 'undone by hand'", panel=PANEL)
async def terminate(client: "Client", run: RunRef, reason: Reason = "") -> Answer:
    """End a run as it stands, and undo nothing.

    Nothing more of it runs. To have it undo what it did, cancel it.
    """
    return await _act(client.terminate, run, reason, "is terminated")


@remote(commands, "retry", "jivsd retry RUN", panel=PANEL)
async def retry(client: "Client", run: RunRef, reason: Reason = "") -> Answer:
    """Try a failed run again from where it failed.

    A new run under its workflow id takes over what it had done well.
    """
    from jivsd.admin import wire

    again = await client.retry(run, reason=reason)

    def view() -> "Page":
        return [again.run_id]

    return Answer(wire.RunView.of(again), view, notes=[f"Watch it: jivsd wait {again.run_id}"])


def _payload(argument: str | None, option: str | None) -> bytes:
    if argument is not None and option is not None:
        raise CommandError(Exit.USAGE, "usage", "the payload is given twice: as an argument and as --input")
    return read_value(option if argument is None else argument, "JSON" if option is None else "--input")


async def _act(act: "Callable[..., Awaitable[Run]]", ref: str, reason: str, done: str) -> Answer:
    from jivsd.admin import wire

    run = await act(ref, reason=reason)

    def view() -> "Page":
        return [f"Run {run.run_id} ({run.workflow}:{run.workflow_id}) {done}."]

    return Answer(wire.RunView.of(run), view)
