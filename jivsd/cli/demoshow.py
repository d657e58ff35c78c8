"""Shows a demo while it runs: as a picture on a terminal, as lines elsewhere."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jivsd.cli.output import say

if TYPE_CHECKING:
    from collections.abc import Generator

    from jivsd.proof.demo import Kill, Scene, Watcher


@contextmanager
def shown(*, quiet: bool) -> Generator[Watcher | None]:
    """Whom the demo tells what happens; nobody if it should be quiet."""
    if quiet:
        yield None
    elif not sys.stderr.isatty():
        yield Lines()
    else:
        from jivsd.cli.drawing import DemoDrawing

        drawing = DemoDrawing()
        try:
            yield drawing
        finally:
            drawing.close()


def kill_line(kill: Kill) -> str:
    """One kill in words."""
    return (
        f"{kill.second:5.1f} s  kill -9, the migration {kill.migrated:.0%} done, {kill.open} runs open, "
        f"{kill.steps} steps running; up again after {kill.ready:.1f} s"
    )


class Lines:
    """A line for each phase of the migration and for each kill."""

    def __init__(self) -> None:
        self._phase = ""

    def scene(self, scene: Scene) -> None:
        if scene.phase != self._phase:
            self._phase = scene.phase
            say(f"{scene.seconds:5.1f} s  migration: {scene.phase}")

    def killed(self, kill: Kill) -> None:
        say(kill_line(kill))
