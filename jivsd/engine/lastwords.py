"""Last words: what a process that is about to end by its own fault leaves in the data folder for the next one.

Nothing is written while all is well. Code that spins or calls `os._exit` is named exactly; of a segmentation fault
only the stack is known (`faulthandler` writes it), so the runs on that code are suspects, and are tried one by one:
those on trial are noted before they are brought back. A process that is killed from outside leaves no last words.
"""

from __future__ import annotations

import faulthandler
import inspect
import os
import re
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec

from jivsd import logs
from jivsd.engine.blame import Blame, blame, codes

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

log = logs.get(__name__)

end_process: Final = os._exit
"""How the daemon itself ends at once: it says no last words."""
BROKEN: Final = 70
"""The exit code of a daemon that ends because of what a run does to it."""

_WORDS: Final = "last-words.json"
_STACK: Final = "last-stack.txt"
_TRIAL: Final = "on-trial.json"
_THREAD: Final = re.compile(
    r"^(?:Current thread|Thread) [^\n]*\(most recent call first\):\n((?:  .*\n)*)", re.MULTILINE
)
_FRAME: Final = re.compile(r'^  File "([^"]+@([0-9a-f]{12})/[^"]+)", line (\d+) in (.+)$', re.MULTILINE)


class Words(msgspec.Struct, frozen=True):
    """Who has ended the process, and how."""

    what: str
    blame: Blame


class Stack(msgspec.Struct, frozen=True):
    """What a dying process had on its stack. `code_hash`: the beginning of the plugin's; empty: none of a plugin."""

    what: str
    where: str = ""
    code_hash: str = ""


class Trial(msgspec.Struct, frozen=True):
    """The runs that were being tried when the process ended, and how often it was tried before."""

    runs: list[str]
    turn: int = 0


class LastWords:
    """The last words in a data folder: those of the process before, and this one's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.stack_file: Any = None
        """Where `faulthandler` writes, while somebody listens."""

    def words(self) -> Words | None:
        """What the process before has said, if it ended by a run's fault and knew whose."""
        return self._read(_WORDS, Words)

    def trial(self) -> Trial | None:
        """Who was on trial when the process before ended."""
        return self._read(_TRIAL, Trial)

    def stack(self) -> Stack | None:
        """The stack of the process before, if it ended by a fatal error or held on to the interpreter."""
        with suppress(OSError, UnicodeDecodeError):
            text = (self._folder / _STACK).read_text()
            if text.strip():
                return _stack_of(text)
        return None

    def forget(self) -> None:
        """What was said has been dealt with."""
        for name in (_WORDS, _STACK, _TRIAL):
            with suppress(OSError):
                (self._folder / name).unlink(missing_ok=True)

    def say(self, what: str, whose: Blame) -> None:
        """Write, durably, whose code is about to end this process."""
        self._write(_WORDS, Words(what, whose))

    def on_trial(self, trial: Trial | None) -> None:
        """Write, durably, which runs are being tried; None: nobody is any more."""
        if trial is None:
            with suppress(OSError):
                (self._folder / _TRIAL).unlink(missing_ok=True)
        else:
            self._write(_TRIAL, trial)

    @contextmanager
    def listening(self, suspect: Callable[[set[object]], Blame | None]) -> Generator[None]:
        """Hear what ends this process: fatal errors, and code that ends it by `os._exit` or by killing it.

        `suspect` says whose step a thread is in, from the code objects on its stack, when the stack does not say so.
        """
        own = os.getpid()
        kill = os.kill

        def heard(what: str, frame: Any) -> None:
            if os.getpid() == own:  # a child process that was forked ends itself alone
                whose = blame(frame)
                if not whose.run_id and (found := suspect(codes(frame))) is not None:
                    whose = Blame(found.run_id, found.path, whose.where)
                if whose.run_id:
                    self.say(what, whose)

        def _exit(status: int) -> NoReturn:
            heard(f"ended the process by os._exit({status})", inspect.currentframe())
            end_process(status)

        def _kill(pid: int, number: int, /) -> None:
            if pid in (own, 0) and number == signal.SIGKILL:
                heard("killed the process", inspect.currentframe())
            kill(pid, number)

        with (self._folder / _STACK).open("w") as self.stack_file:
            faulthandler.enable(self.stack_file, all_threads=True)
            os._exit, os.kill = _exit, _kill
            try:
                yield
            finally:
                os._exit, os.kill = end_process, kill
                faulthandler.disable()
        with suppress(OSError):
            (self._folder / _STACK).unlink()

    def _read(self, name: str, kind: type[Any]) -> Any:
        try:
            return msgspec.json.decode((self._folder / name).read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("last words cannot be read", file=str(self._folder / name), why=str(error))
            return None

    def _write(self, name: str, value: msgspec.Struct) -> None:
        """A file that is there as a whole or not at all, also after a power cut."""
        partial = self._folder / f"{name}.partial"
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, msgspec.json.encode(value))
            os.fsync(file)
        finally:
            os.close(file)
        os.replace(partial, self._folder / name)
        folder = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _stack_of(text: str) -> Stack:
    """What faulthandler has written: its first line, and the author's line in the thread that was to blame."""
    fatal = re.match(r"Fatal Python error: (.*)", text.strip())
    said = f"ended the process ({fatal[1]})" if fatal else "kept the interpreter to itself"
    threads = {match[0].startswith("Current"): match[1] for match in _THREAD.finditer(text)}
    frame = _FRAME.search(threads.get(True, ""))
    if frame is None:
        return Stack(said)
    return Stack(said, f"{frame[1]}:{frame[3]} in {frame[4]}", frame[2])
