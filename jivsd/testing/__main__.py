"""`python -m jivsd.testing replay BUNDLE`: replay what `jivsd export` has written, under a debugger if you like."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from jivsd.registry.source import PluginProblem
from jivsd.testing.debugging import Debugger
from jivsd.testing.history import History, Mismatch, NotAHistory, replay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.testing.history import Replay

NOT_SAID = "\0"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0: it replays, 1: it does not, 2: it could not be tried."""
    given = _parser().parse_args(arguments)
    observer = None
    if given.at is not NOT_SAID:
        observer = Debugger(given.at)
    try:
        history = History.read(given.bundle)
        found = replay(history, given.plugin, observer=observer)
    except Mismatch as mismatch:
        if observer is not None and observer.quit:
            return 0
        sys.stderr.write(f"{mismatch}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{given.bundle} cannot be read: {error.strerror or error}\n")
        return 2
    except (NotAHistory, LookupError, PluginProblem) as error:
        sys.stderr.write(f"{error.args[0] if error.args else error}\n")
        return 2
    sys.stdout.write(f"{_report(history, found)}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jivsd.testing", description="Replay the journals of runs.")
    command = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "replay",
        help="replay one run; no step is run, and no database is needed",
        description="Replay one run: its code goes through its journal. No step is run, no database is needed.",
    )
    command.add_argument("bundle", metavar="BUNDLE", help="what `jivsd export RUN` has written")
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
