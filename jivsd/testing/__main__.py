"""`python -m jivsd.testing replay BUNDLE`: replay what `jivsd export` has written, under a debugger if you like."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jivsd.registry.source import PluginProblem
from jivsd.testing import archive
from jivsd.testing.debugging import Debugger
from jivsd.testing.history import History, Mismatch, NotAHistory, replay, workflow_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.authoring.workflows import Workflow
    from jivsd.testing.history import Replay

NOT_SAID = "\0"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0: it replays, 1: it does not, 2: it could not be tried."""
    given = _parser().parse_args(arguments)
    observer = None
    if given.at is not NOT_SAID:
        observer = Debugger(given.at)
        if given.run is None and Path(given.bundle).is_file() and archive.is_archive(Path(given.bundle)):
            sys.stderr.write("--break needs one run of an archive: say which with --run RUN_ID\n")
            return 2
    try:
        if archive.is_archive(Path(given.bundle)) and given.run is None:
            return _replay_all(Path(given.bundle), given.plugin)
        history = _history(given.bundle, given.run)
        found = replay(history, given.plugin, observer=observer)
    except Mismatch as mismatch:
        if observer is not None and observer.quit:
            return 0
        sys.stderr.write(f"{mismatch}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{given.bundle} cannot be read: {error.strerror or error}\n")
        return 2
    except (NotAHistory, archive.NotAnArchive, LookupError, PluginProblem) as error:
        sys.stderr.write(f"{error.args[0] if error.args else error}\n")
        return 2
    sys.stdout.write(f"{_report(history, found)}\n")
    return 0


def _history(bundle: str, run_id: str | None) -> History:
    path = Path(bundle)
    if not archive.is_archive(path):
        return History.read(path)
    for history in archive.read(path):
        if history.run_id == run_id:
            return history
    raise LookupError(f"there is no run {run_id} in {bundle}")


def _replay_all(path: Path, plugin: str | None) -> int:
    """Replay every run of an archive; say which do not match."""
    total = wrong = 0
    workflows: dict[tuple[str, str], Workflow[..., Any]] = {}
    for history in archive.read(path):
        total += 1
        name = (history.code_hash, history.workflow)
        try:
            if name not in workflows:
                workflows[name] = workflow_of(history, plugin)
            replay(history, workflows[name])
        except Mismatch as mismatch:
            wrong += 1
            sys.stderr.write(f"{history.run_id}: {mismatch}\n")
    sys.stdout.write(f"{total - wrong:,} of {total:,} runs replay; one by one: --run RUN_ID [--break PATH]\n")
    return 1 if wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jivsd.testing", description="Replay the journals of runs.")
    command = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "replay",
        help="replay one run; no step is run, and no database is needed",
        description="Replay one run: its code goes through its journal. No step is run, no database is needed.",
    )
    command.add_argument(
        "bundle", metavar="BUNDLE", help="what `jivsd export RUN` or `jivsd prune --archive` has written"
    )
    command.add_argument("--run", metavar="RUN_ID", help="which run of an archive; without it, all are replayed")
    command.add_argument("--plugin", metavar="PATH", help="replay this code, not that in the bundle: does it match?")
    command.add_argument(
        "--break",
        dest="at",
        metavar="PATH",
        nargs="?",
        default=NOT_SAID,
        help="stop in pdb where the code issues the command at PATH (as in the timeline); without PATH, at the end",
    )
    return parser


def _report(history: History, found: Replay) -> str:
    head = (
        f"{history.workflow}:{history.workflow_id} replays: {len(history.events)} events, {len(found.issued)} commands"
    )
    if found.blocked is not None:
        return f"{head}; an incident holds it: {found.blocked.message}"
    if found.outcome is not None:
        error = found.outcome.error
        return f"{head}; it ends {found.outcome.status}" + (f", {error.type}: {error.message}" if error else "")
    return f"{head}; it goes on from there"


if __name__ == "__main__":
    sys.exit(main())
