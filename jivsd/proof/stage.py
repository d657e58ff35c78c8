"""Where a proof takes place: in a folder that goes or stays; and it leaves no daemon behind, however it ends."""

from __future__ import annotations

import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from jivsd.proof.daemons import DaemonFailed

if TYPE_CHECKING:
    from collections.abc import Generator


class FolderNotEmpty(Exception):
    """There is something in the folder that the databases should be left in."""


@contextmanager
def folder(keep: Path | None, name: str) -> Generator[Path]:
    """The folder `keep`, which must be new or empty; or else a temporary one, with `name` in its own.

    Raises:
        FolderNotEmpty.
    """
    if keep is None:
        with tempfile.TemporaryDirectory(prefix=f"jivsd-{name}-") as made:
            yield Path(made)
        return
    keep = keep.absolute()
    keep.mkdir(parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise FolderNotEmpty(f"{keep} is not empty; name a new folder, or one that is empty")
    yield keep


@contextmanager
def one_error() -> Generator[None]:
    """Let an interrupt, or a daemon that failed, be one error, though it comes out of nurseries."""
    try:
        yield
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is not None:
            raise KeyboardInterrupt from None
        failed = group.subgroup(DaemonFailed)
        while isinstance(failed, BaseExceptionGroup):
            failed = failed.exceptions[0]
        if failed is None:
            raise
        raise failed from None


async def interrupt_on_sigterm() -> None:
    """SIGTERM does what Ctrl-C does, so that no daemon is left behind."""
    with trio.open_signal_receiver(signal.SIGTERM) as arriving:
        await anext(aiter(arriving))
        raise KeyboardInterrupt
