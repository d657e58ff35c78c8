"""Steering runs, one or many: pause, resume, cancel, terminate, retry."""

import sys
from typing import TYPE_CHECKING, Final

from jivsd.cli import filters
from jivsd.cli.command import Reason, group, remote
from jivsd.cli.exits import CommandError, Exit
from jivsd.cli.output import Answer, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.cli.output import Page
    from jivsd.client import Client
    from jivsd.engine.api import Act, Acted, RunAction
    from jivsd.store.api import RunFilter

PANEL: Final = "Act on runs"
SHOWN: Final = 20
"""Refused runs that people are told of one by one."""
WORDS: Final = {
    "pause": ("is paused", "paused"),
    "resume": ("goes on", "resumed"),
    "cancel": ("is asked to stop and to undo what it did", "asked to stop"),
    "terminate": ("is terminated", "terminated"),
    "retry": ("is tried again", "tried again"),
    "signal": ("has the signal", "sent the signal"),
}
"""What has been done, said of one run and of many."""

commands = group()


def _register(action: "RunAction", about: str, *shown: str) -> None:
    """The command of an action: on the run that is named, or on those of a filter."""

    async def command(
        client: "Client",
        run: filters.MaybeRun = None,
        reason: Reason = "",
        everything: filters.Everything = False,
        workflow: filters.OfWorkflow = None,
        status: filters.OfStatus = None,
        attribute: filters.OfAttribute = None,
        parent: filters.OfParent = None,
        created_after: filters.CreatedAfter = None,
        created_before: filters.CreatedBefore = None,
        ended_after: filters.EndedAfter = None,
        ended_before: filters.EndedBefore = None,
        dry_run: filters.DryRun = False,
        yes: filters.Yes = False,
    ) -> Answer:
        from jivsd.engine.api import Act

        times = created_after, created_before, ended_after, ended_before
        where = filters.read_filter(everything, workflow, status, attribute, parent, times)
        act = Act(action, reason)
        if (run is None) == (where is None):
            said = "give a RUN or a filter, not both" if run else "which one? Name a RUN, or say which with a filter"
            raise CommandError(Exit.USAGE, "usage", said)
        if where is not None:
            return await many(client, act, where, dry_run=dry_run, yes=yes)
        assert run is not None
        if dry_run:
            return _would(act, await client.act_on(act, [run], dry_run=True), 0)
        return await _one(client, act, run)

    command.__doc__ = about
    remote(commands, action, *shown, panel=PANEL)(command)


_register(
    "pause",
    """Pause a run, or many.

    Its running steps end, then nothing more starts until it is resumed. Runs that are started later are not held, also
    after --all: for that there is `jivsd quarantine begin WORKFLOW`.
    """,
    "jivsd pause RUN --reason 'maintenance of the target'",
    "jivsd pause --all",
    "jivsd pause --workflow migration --dry-run",
)
_register(
    "resume",
    "Let a paused run go on, or many.",
    "jivsd resume RUN",
    "jivsd resume --all",
    "jivsd resume --workflow migration",
)
_register(
    "cancel",
    "Stop a run and undo what it did (compensate), or many.",
    "jivsd cancel RUN --reason 'the order was withdrawn'",
    "jivsd cancel --workflow order --attribute region=eu --dry-run",
)
_register(
    "terminate",
    """End a run as it stands and undo nothing, or many.

    Nothing more of it runs. To have it undo what it did, cancel it.
    """,
    "jivsd terminate RUN --reason 'undone by hand'",
    "jivsd terminate --workflow order --created-before 30d",
)
_register(
    "retry",
    """Try a failed run again from where it failed, or many.

    A new run under its workflow id takes over what it had done well. With a filter, a failed run that another run of
    its workflow id has followed is left alone.
    """,
    "jivsd retry RUN",
    "jivsd retry --status FAILED --ended-after 1h",
)


async def many(client: "Client", act: "Act", where: "RunFilter", *, dry_run: bool, yes: bool) -> Answer:
    """Do the same to all runs of a filter, or say to which it would be done."""
    from jivsd.store.api import RunFilter

    if dry_run:
        page = await client.act_on_page(act, where, limit=SHOWN, dry_run=True)
        return _would(act, page.items, page.left or 0)
    if not yes:
        await filters.confirm(client, act, where)
    if act.action in ("pause", "resume") and where == RunFilter(workflow=where.workflow):
        switch = client.pause_all if act.action == "pause" else client.resume_all
        switched = await switch(where.workflow, reason=act.reason, on_progress=_progress)
        return _answer(act, switched.done, switched.refusals, switched.refused, switched.refused)
    return _results(act, await client.act_on_all(act, where, on_progress=_progress))


def _results(act: "Act", results: "Sequence[Acted]") -> Answer:
    refused = [one for one in results if one.result == "refused"]
    done = sum(one.result == "done" for one in results)
    return _answer(act, done, len(refused), refused, results)


def _answer(act: "Act", done: int, refusals: int, refused: "Sequence[Acted]", items: "Sequence[Acted]") -> Answer:
    """What came of it: `refused` is said to people, `items` to programs."""

    def view() -> "Page":
        said = WORDS[act.action][1]
        yield f"{said[0].upper()}{said[1:]}: {done:,} {'run' if done == 1 else 'runs'}."
        yield from _refusals(refused, refusals)

    code = Exit.FAILED if refusals else Exit.OK
    document = {"done": done, "refusals": refusals, "items": items, "next": None}
    return Answer(document, view, code, notes=["--json has all of them"] if len(refused) > SHOWN else [])


def _would(act: "Act", results: "Sequence[Acted]", left: int) -> Answer:
    items = [one for one in results if one.result == "would"]
    refused = [one for one in results if one.result == "refused"]

    def view() -> "Page":
        from jivsd.cli import look
        from jivsd.engine.api import COUNTED

        total = len(items) + left
        about = "more than " if left >= COUNTED else ""
        yield f"Would {act.action} {about}{total:,} {'run' if total == 1 else 'runs'}."
        if items:
            table = look.table("RUN", "STATUS", "WORKFLOW:ID", cut="WORKFLOW:ID")
            for one in items:
                table.add_row(one.run_id or one.ref, one.status or "", f"{one.workflow}:{one.workflow_id}")
            yield table
        yield from _refusals(refused, len(refused))

    code = Exit.FAILED if refused else Exit.OK
    return Answer({"items": results, "left": left, "next": None}, view, code)


def _refusals(refused: "Sequence[Acted]", count: int) -> "Page":
    from jivsd.cli import look

    if refused:
        table = look.table("RUN", "WHY NOT", wraps=("WHY NOT",))
        for one in refused[:SHOWN]:
            table.add_row(one.run_id or one.ref, one.why or "")
        yield look.section(f"Refused: {count:,}", table)


async def _one(client: "Client", act: "Act", ref: str) -> Answer:
    from jivsd.admin import wire

    does = {
        "pause": client.pause,
        "resume": client.resume,
        "cancel": client.cancel,
        "terminate": client.terminate,
        "retry": client.retry,
    }
    run = await does[act.action](ref, reason=act.reason)

    def view() -> "Page":
        if act.action == "retry":
            return [run.run_id]
        why = f": {act.reason}" if act.action == "pause" and act.reason else ""
        return [f"Run {run.run_id} ({run.workflow}:{run.workflow_id}) {WORDS[act.action][0]}{why}."]

    notes = [f"Watch it: jivsd wait {run.run_id}"] if act.action == "retry" else []
    return Answer(wire.RunView.of(run), view, notes=notes)


def _progress(number: int) -> None:
    if sys.stderr.isatty():
        say(f"{number:,} runs so far")
