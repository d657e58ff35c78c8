"""How runs look: the list, the page of one, its outcome, and why it waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text
from rich.tree import Tree

from jivsd.cli import look
from jivsd.records import ENDED, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.cli.output import Page
    from jivsd.engine.api import Wait, Why
    from jivsd.records import Progress


def listing(runs: Sequence[Run]) -> Page:
    """The table of `jivsd list`."""
    if not runs:
        return ["No runs."]
    table = look.table("RUN", "STATUS", "AGE", "TOOK", "WORKFLOW:ID", numbers=("AGE", "TOOK"), cut="WORKFLOW:ID")
    now = look.now()
    for run in runs:
        table.add_row(
            run.run_id,
            look.status_text(run),
            look.brief(now - run.created_at),
            look.brief(look.duration_of(run)),
            f"{run.workflow}:{run.workflow_id}",
        )
    return [table]


def run(run: Run, progress: Sequence[Progress] = ()) -> Page:
    """The page of `jivsd show`."""
    options = run.options
    started = run.started_at if run.started_at and run.started_at - run.created_at > look.SECOND else None
    pairs = [
        ("Run", run.run_id),
        ("Workflow", run.workflow),
        ("Workflow id", run.workflow_id),
        ("Status", look.status_text(run)),
        ("Created", look.moment_and_ago(run.created_at)),
        ("Started", look.moment_and_ago(started) if started else None),
        ("Ended", look.moment_and_ago(run.ended_at) if run.ended_at else None),
        ("Took" if run.status in ENDED else "Takes", look.length(look.duration_of(run))),
        ("Wakes", look.moment_and_ago(run.wake_at) if run.wake_at and run.status not in ENDED else None),
        ("Time limit", look.length(options.timeout) if options.timeout else None),
        ("Lock key", options.lock_key),
        ("Priority", str(options.priority) if options.priority else None),
        ("Parent run", options.parent),
        ("Correlation", options.correlation_id),
        ("Attributes", look.json_line(run.attributes) if run.attributes else None),
        ("Code", run.code_hash),
        ("Input", look.value_text(run.input)),
        ("Output", look.value_text(run.output) if run.output is not None else None),
        ("Error", look.error_text(run.error) if run.error else None),
    ]
    if not progress:
        return [look.facts(pairs)]
    said = look.facts((one.path, f"{one.text}  {look.ago(one.at)}") for one in progress)
    return [look.facts(pairs), look.section("Steps at work", said)]


def outcome(run: Run) -> Page:
    """How a run that was watched has ended."""
    end = Text.assemble(
        look.status_text(run), f" {run.workflow}:{run.workflow_id} after {look.length(look.duration_of(run))}"
    )
    pairs = [
        ("Run", run.run_id),
        ("Output", look.value_text(run.output) if run.output is not None else None),
        ("Error", look.error_text(run.error) if run.error else None),
    ]
    return [end, look.facts(pairs)]


def why(found: Why) -> Page:
    """The tree of `jivsd why`: the run, and under it what it waits for."""
    run = found.run
    tree = Tree(look.head(run), guide_style="dim")
    for wait in found.waits:
        _add_wait(tree, wait)
    if not found.waits:
        tree.add("It has ended." if run.status in ENDED else "It waits for nothing: it is at work.")
    return [tree]


def _add_wait(tree: Tree, wait: Wait) -> None:
    line = Text(wait.what)
    if wait.path:
        line.append(f"  at {wait.path}", style="dim")
    branch = tree.add(line)
    if wait.until is not None:
        branch.add(Text(f"until {look.moment_and_ago(wait.until)}"))
    if wait.error:
        branch.add(Text(wait.error, style="red"))
    for place, run_id in enumerate(wait.behind):
        branch.add(Text(f"{'held by' if place == 0 else 'before it'} run {run_id}"))
