"""Watches a run until it has ended, and shows meanwhile how far it is.

A workflow that has a query named `progress` is drawn as a bar; it answers with any of these fields:
`{"phase", "done", "total", "unit", "detail", "rate", "remaining_s"}`. So is one whose steps say with heartbeats how
much they have done. Of the others we say what they wait for.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
import trio

from jivsd.cli.exits import CommandError, Exit
from jivsd.cli.output import say
from jivsd.client import ClientError, DaemonNotRunning
from jivsd.engine.api import Wait
from jivsd.records import ENDED, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd import records
    from jivsd.client import Client

LOOK_S: Final = 0.4
"""Seconds between two looks at a run."""

AWAY_S: Final = 120
"""Seconds that a daemon may be away (being restarted, say) before the watching is given up."""

LINE_PERCENT: Final = 10
"""Where there is no terminal, a line is printed when a phase has advanced by so much."""


class Progress(msgspec.Struct, frozen=True):
    """How far a run says it is. `rate` is units per second."""

    phase: str = ""
    done: float | None = None
    total: float | None = None
    unit: str = ""
    detail: str = ""
    rate: float | None = None
    remaining_s: float | None = None

    @property
    def percent(self) -> float | None:
        if self.done is None or not self.total:
            return None
        return min(max(100 * self.done / self.total, 0), 100)


class Sight(msgspec.Struct, frozen=True):
    """What is known of a run at a moment."""

    run: Run
    progress: Progress | None = None
    waits: list[Wait] = []
    away: str = ""
    """Why nothing new is known."""


class Display(Protocol):
    """Where what is seen of a run is shown."""

    def show(self, sight: Sight) -> None: ...

    def close(self) -> None: ...


async def watch(client: Client, run: Run, *, quiet: bool) -> Run:
    """Follow a run until it has ended, through restarts of the daemon, and return it as it then is.

    Raises:
        CommandError: the daemon has been away for too long.
    """
    display = _display(quiet=quiet)
    try:
        return await _follow(client, run, display)
    finally:
        display.close()


async def _follow(client: Client, run: Run, display: Display) -> Run:
    seen_at = time.monotonic()
    while True:
        try:
            run = await client.result(run.run_id, timeout=LOOK_S)
            if run.status in ENDED:
                return run
            progress = await _progress(client, run) or of_steps(await client.progress(run.run_id))
            waits = [] if progress else (await client.why(run.run_id)).waits
            display.show(Sight(run, progress, waits))
            seen_at = time.monotonic()
        except (DaemonNotRunning, ClientError) as error:
            if isinstance(error, ClientError) and error.status != 503:
                raise
            if time.monotonic() - seen_at > AWAY_S:
                message = f"the daemon has been away for {AWAY_S} s; the run goes on when it is back: {error}"
                raise CommandError(Exit.NOT_RUNNING, "not_running", message) from None
            display.show(Sight(run, away=str(error)))
            await trio.sleep(LOOK_S)


async def _progress(client: Client, run: Run) -> Progress | None:
    """What the run's own query says; None if it has none, or cannot answer just now."""
    try:
        return progress_of((await client.query(run.run_id, "progress")).value)
    except ClientError:
        return None


def progress_of(answer: msgspec.Raw) -> Progress | None:
    """The answer of a query as progress; None if it says nothing of the kind."""
    try:
        progress = msgspec.json.decode(bytes(answer), type=Progress)
    except msgspec.DecodeError:
        return None
    return progress if progress.phase or progress.done is not None else None


def of_steps(said: Sequence[records.Progress]) -> Progress | None:
    """What the steps of a run say with their heartbeats, in one; None if none says how far it is."""
    counted = [one for one in said if one.done is not None]
    if not counted:
        return None
    whole = [one.total for one in counted if one.total is not None]
    total = sum(whole) if len(whole) == len(counted) else None
    phase = counted[0].path if len(counted) == 1 else f"{len(counted)} steps"
    return Progress(phase=phase, done=sum(one.done or 0 for one in counted), total=total)


def _display(*, quiet: bool) -> Display:
    if quiet:
        return Silence()
    if not sys.stderr.isatty():
        return Lines()
    from jivsd.cli.drawing import Drawing

    return Drawing()


class Silence:
    """Shows nothing."""

    def show(self, sight: Sight) -> None:
        pass

    def close(self) -> None:
        pass


class Lines:
    """Prints a line when something has changed: for logs and pipes."""

    def __init__(self) -> None:
        self._last: tuple[str, ...] = ()

    def show(self, sight: Sight) -> None:
        said = self._said(sight)
        if said != self._last:
            self._last = said
            say(": ".join(part for part in said if part))

    def _said(self, sight: Sight) -> tuple[str, ...]:
        run, progress = sight.run, sight.progress
        if sight.away:
            return run.workflow, "waiting for the daemon to come back"
        if progress is None:
            return run.workflow, run.status, "; ".join(wait.what for wait in sight.waits[:3])
        percent = progress.percent
        done = "" if percent is None else f"{percent // LINE_PERCENT * LINE_PERCENT:.0f} %"
        return run.workflow, run.status, progress.phase, done

    def close(self) -> None:
        pass
