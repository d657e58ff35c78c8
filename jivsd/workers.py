"""Several processes of one host as one service: `jivsd run --workers N`.

The parent opens the sockets that all share, forks the workers, each a node of its own, starts again those that end,
and hands on signals. It runs no loop of trio's and no thread, so that it may fork at any time.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NoReturn

from jivsd import logs, memory
from jivsd.listening import OPEN, CannotListen, address_of, close, listen_tcp, listen_unix
from jivsd.notify import READY, STOPPING, WATCHDOG, Notifier
from jivsd.places import ConfigError, make_folder, socket_path
from jivsd.supervision import Intensity, Restarts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from jivsd.config import Config

    Work = Callable[[str, Notifier], int]

log = logs.get("workers")

OK, FAILED, INTERRUPTED = 0, 1, 130
HARD_END: Final = 15.0
NODE_LIMIT: Final = 64
"""Characters of a node's name."""
_MESSAGE: Final = 4096
_PDEATHSIG: Final = 1  # PR_SET_PDEATHSIG of prctl(2)
_HEARD: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def run(config: Config) -> int:
    """Run the daemon in `config.workers` processes until SIGTERM or SIGINT; a second SIGINT ends them at once.

    Returns the exit code: that of a daemon, whichever worker had to give it.
    """
    logs.configure(config.log.level, config.log.format, config.node)
    try:
        homes = _homes(config)
        make_folder(config.data_dir)
        listeners = _listen(config)
    except (ConfigError, CannotListen, OSError) as error:
        log.critical("the daemon cannot run", why=str(error))
        return FAILED

    def work(name: str, notifier: Notifier) -> int:
        memory.hold_off()
        from jivsd import daemon  # after the fork: the parent stays small

        own = config.model_copy(update={"node": name, "data_dir": homes[name], "workers": 1})
        siblings = {other: socket_path(home) for other, home in homes.items() if other != name}
        return daemon.run(own, household=daemon.Household(listeners, siblings, notifier))

    limits, grace = config.supervision, config.shutdown.grace / 1e6
    intensity = Intensity(limits.restarts, limits.period / 1e6)
    family = Family(list(homes), work, intensity=intensity, grace=grace, notifier=Notifier.of_environment())
    family.on_ready = lambda: log.info("ready", workers=len(homes), listening=[address_of(one) for one in listeners])
    family.on_stop = lambda: [close(one) for one in listeners]
    return family.run()


def folders_of(data_dir: Path, workers: int) -> list[Path]:
    """The data folders of so many workers."""
    return [data_dir / f"worker-{number}" for number in range(1, workers + 1)]


def _homes(config: Config) -> dict[str, Path]:
    """The nodes and their data folders.

    Raises:
        ConfigError: a folder's path is too long for a socket in it, or a node's name is too long.
    """
    longest = NODE_LIMIT - len(f"-{config.workers}")
    if len(config.node) > longest:
        raise ConfigError([f"node: must have at most {longest} characters, so that workers can have a number after it"])
    folders = folders_of(config.data_dir, config.workers)
    homes = {f"{config.node}-{number}": folder for number, folder in enumerate(folders, 1)}
    for home in (config.data_dir, *homes.values()):
        socket_path(home)
    return homes


def _listen(config: Config) -> list[socket.socket]:
    listeners = [listen_unix(socket_path(config.data_dir))]
    if config.http is not None:
        try:
            listeners += listen_tcp(config.http.host, config.http.port)
        except CannotListen:
            close(listeners[0])
            raise
        if not config.needs_token:
            log.warning(OPEN, http=str(config.http))
    return listeners


class _Worker:
    """One worker through all its lives."""

    def __init__(self, name: str, intensity: Intensity) -> None:
        self.name = name
        self.pid = 0
        self.restarts = Restarts(intensity)
        self.due: float | None = None
        """When it is to be started, by the steady clock; None while it lives, or if it is not to be."""
        self.ready = False
        self.was_ready = False
        self.line: socket.socket | None = None
        """Where it says how it is."""
        self.felt = 0.0
        """When it was last heard to be well, by the steady clock."""

    def hang_up(self) -> None:
        if self.line is not None:
            self.line.close()
            self.line = None


class Family:
    """A parent process and its workers.

    The first worker is started alone, so that what keeps all from running is said once; the others when it is ready.
    One that ends is started again, with the pauses of its intensity; when it ends too often, or before it was ever
    ready, all stop. Workers end with their parent, however that ends.

    If there is a watchdog, each worker has to be heard in its time; one that is not is killed, and the watchdog hears
    of the parent. So one that hangs does not take the others with it.

    Args:
        names: of the workers.
        work: what each does, in a process of its own: by its name; it tells the notifier when it is ready, and returns
            its exit code.
        intensity: how often one may be started again.
        grace: seconds that workers have to end by themselves.
        notifier: who is told how the family is.
    """

    def __init__(
        self, names: Sequence[str], work: Work, *, intensity: Intensity, grace: float, notifier: Notifier
    ) -> None:
        self._workers = [_Worker(name, intensity) for name in names]
        self._work = work
        self._grace = grace
        self._notifier = notifier
        self._ears: tuple[socket.socket, socket.socket] | None = None
        self._deadline: float | None = None
        """When the workers are killed; None while nobody wants them to end."""
        self._code = OK
        self._announced = False
        self._felt = 0.0
        """When the watchdog was last told that the parent is well."""
        self.hard_end = HARD_END
        """Seconds after the grace when those that still live are killed: they end themselves before that."""
        self.on_ready: Callable[[], object] = lambda: None
        """Called in the parent when all workers are ready for the first time."""
        self.on_stop: Callable[[], object] = lambda: None
        """Called in the parent when the workers are told to end."""

    def run(self) -> int:
        """Run the workers until a signal ends them; returns the exit code."""
        with self._hearing():
            self._start(self._workers[0])
            while self._deadline is None or any(worker.pid for worker in self._workers):
                self._listen()
                self._reap()
                self._start_those_due()
                self._watch()
        return self._code

    # ---- what is heard

    @contextmanager
    def _hearing(self) -> Generator[None]:
        self._ears = ears = socket.socketpair()
        for ear in ears:
            ear.setblocking(False)
        before = {number: signal.signal(number, _note) for number in _HEARD}
        wakeup = signal.set_wakeup_fd(ears[1].fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            for ear in ears:
                ear.close()

    def _listen(self) -> None:
        """Wait until something is heard or due, and deal with what was heard."""
        assert self._ears is not None
        lines = {worker.line.fileno(): worker for worker in self._workers if worker.line is not None}
        poll = select.poll()
        for file in (self._ears[0].fileno(), *lines):
            poll.register(file, select.POLLIN)
        times = [worker.due for worker in self._workers if worker.due is not None]
        times += [self._deadline] if self._deadline is not None else []
        times += [self._felt + self._beat] if self._beat is not None else []
        left = max(min(times) - time.monotonic(), 0.0) if times else None
        for file, _ in poll.poll(None if left is None else left * 1000 + 1):
            if file in lines:
                self._hear(lines[file])
            else:
                for number in self._ears[0].recv(_MESSAGE):
                    self._obey(signal.Signals(number))
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._kill_all()

    def _hear(self, worker: _Worker) -> None:
        assert worker.line is not None
        try:
            said = worker.line.recv(_MESSAGE).decode(errors="replace").split("\n")
        except BlockingIOError:
            return
        except OSError:
            said = [""]
        if said == [""]:
            worker.hang_up()
        if READY in said or WATCHDOG in said:
            worker.felt = time.monotonic()
        if READY in said and not worker.ready:
            worker.ready = worker.was_ready = True
            self._welcome()

    @property
    def _beat(self) -> float | None:
        """Seconds between two looks at how the workers are."""
        return None if self._notifier.watchdog is None else self._notifier.watchdog / 4

    def _watch(self) -> None:
        """Kill workers that hang, and tell the watchdog that this was seen to."""
        now = time.monotonic()
        if self._beat is None or self._notifier.watchdog is None or now < self._felt + self._beat:
            return
        for worker in self._workers:
            if worker.pid and worker.ready and now > worker.felt + self._notifier.watchdog:
                log.error("worker hangs; it is killed", worker=worker.name, seconds=self._notifier.watchdog)
                os.kill(worker.pid, signal.SIGKILL)
                worker.ready = False
        self._notifier.send(WATCHDOG)
        self._felt = now

    def _welcome(self) -> None:
        """A worker is ready: the others may begin, or all have begun."""
        if all(worker.was_ready for worker in self._workers):
            if not self._announced and self._deadline is None:
                self._announced = True
                self.on_ready()
                self._notifier.send(READY, f"STATUS={len(self._workers)} workers are ready")
            return
        now = time.monotonic()
        for worker in self._workers:
            if not worker.pid and not worker.was_ready and self._deadline is None:
                worker.due = now

    def _obey(self, number: signal.Signals) -> None:
        match number:
            case signal.SIGHUP:
                self._notifier.reloading()
                self._signal_all(number)
                self._notifier.send(READY)
            case signal.SIGINT if self._deadline is not None:
                self._code = INTERRUPTED
                self._signal_all(number)
            case signal.SIGINT | signal.SIGTERM:
                log.info("stopping", signal=number.name, grace_s=self._grace)
                self._stop()
            case _:
                pass  # SIGCHLD: who has ended is looked for after anything that was heard

    # ---- starting

    def _start_those_due(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            if worker.due is not None and worker.due <= now and self._deadline is None:
                self._start(worker)

    def _start(self, worker: _Worker) -> None:
        worker.due, worker.ready = None, False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        # Between the fork and its own handlers a worker would tell the parent's ears what it hears
        held = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        try:
            pid = os.fork()
        except OSError as error:
            ours.close()
            theirs.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            self._lost(worker, f"it cannot be started: {error.strerror}")
            return
        if pid == 0:
            ours.close()
            self._live(worker, Notifier(theirs, self._notifier.watchdog), parent, held)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        theirs.close()
        ours.setblocking(False)
        worker.pid, worker.line = pid, ours

    def _live(self, worker: _Worker, notifier: Notifier, parent: int, mask: set[int] | set[signal.Signals]) -> NoReturn:
        """Be a worker."""
        code = FAILED
        try:
            assert self._ears is not None
            signal.set_wakeup_fd(-1)
            for number in _HEARD:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can do what that asks for
            for line in (*self._ears, *(other.line for other in self._workers if other.line is not None)):
                line.close()
            os.setpgid(0, 0)  # Ctrl-C reaches all of a terminal's group at once: the parent hands it on
            ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGTERM)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if os.getppid() == parent:
                code = self._work(worker.name, notifier)
        except KeyboardInterrupt:
            code = INTERRUPTED
        except BaseException as error:
            log.critical("the worker crashed", worker=worker.name, exc_info=error)
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
            os._exit(code)

    # ---- ending

    def _reap(self) -> None:
        for worker in self._workers:
            if worker.pid:
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
                if pid:
                    self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: _Worker, code: int) -> None:
        worker.pid = 0
        worker.hang_up()
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        if self._deadline is not None:
            asked = (OK, -signal.SIGTERM)  # by the signal itself: before it could hear it
            if code not in asked and self._code == OK:
                log.error("a worker did not end well", worker=worker.name, how=how)
                self._code = FAILED
            return
        self._lost(worker, f"it ended by {how}")

    def _lost(self, worker: _Worker, why: str) -> None:
        """A worker has ended although nobody wanted that of the family."""
        if not worker.was_ready:
            self._fail(f"worker {worker.name} could not be started: {why}")
            return
        wait = worker.restarts.delay(time.monotonic())
        if wait is None:
            self._fail(f"worker {worker.name} has ended too often: {why}")
            return
        log.error("worker ended", worker=worker.name, why=why)
        log.info("worker is restarted", worker=worker.name, seconds=wait)
        worker.due = time.monotonic() + wait

    def _fail(self, why: str) -> None:
        log.critical("the daemon cannot run", why=why)
        self._code = FAILED
        self._stop()

    def _stop(self) -> None:
        if self._deadline is None:
            self._deadline = time.monotonic() + self._grace + self.hard_end
            patience = self._grace + 2 * self.hard_end
            self._notifier.send(STOPPING, f"EXTEND_TIMEOUT_USEC={int(patience * 1e6)}")
            self.on_stop()
            self._signal_all(signal.SIGTERM)

    def _kill_all(self) -> None:
        log.critical("stopping took too long; killing the workers that are left")
        self._code = self._code or FAILED
        self._deadline = time.monotonic() + self.hard_end
        self._signal_all(signal.SIGKILL)

    def _signal_all(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.pid:
                os.kill(worker.pid, number)  # it is there, if only to be waited for


def _note(_number: int, _frame: object) -> None:
    """The ears have heard it; without a handler it would be the end."""
