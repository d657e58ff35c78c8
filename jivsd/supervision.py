"""Keeps the daemon's parts alive: child specs, restart strategies and intensity.

The words and rules are those of Erlang/OTP's supervisors (https://www.erlang.org/doc/system/sup_princ.html); what is
different: the intensity is counted per child, and restarts back off. A supervisor starts its children in order, each
when the one before is ready, and stops them in reverse order, each within its deadline, whether it is cancelled, told
to stop or gives up. Times are in seconds, as everywhere in trio.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

import trio

from jivsd import logs
from jivsd.masking import masked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

RestartRule = Literal["permanent", "transient", "temporary"]
"""permanent: started again however it ended; transient: only after a crash; temporary: never."""

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
"""What is restarted with a child that crashed: nothing else, all others, or those that were started after it."""

log = logs.get("supervision")


class SupervisionError(Exception):
    """A supervisor cannot go on. The child's exception is the cause."""


class StartFailed(SupervisionError):
    """A child ended before it was ready for the first time."""


class RestartsExceeded(SupervisionError):
    """A child crashed more often than its intensity allows."""


class StopFailed(SupervisionError):
    """A child that has to be restarted with another one did not stop within its deadline."""


@dataclass(frozen=True, slots=True)
class Intensity:
    """How many restarts are allowed within `period` seconds, and how long to wait before each.

    The wait is `first` seconds, doubled for each earlier restart in the period, up to `limit`. A limit above
    `period / restarts` would keep a child from ever exceeding its intensity.
    """

    restarts: int = 5
    period: float = 60.0
    first: float = 0.1
    limit: float = 5.0


class Restarts:
    """Counts the restarts of one child (or of anything that crashes) against an intensity; pure."""

    __slots__ = ("_intensity", "_recent", "total")

    def __init__(self, intensity: Intensity) -> None:
        self.total = 0
        self._intensity = intensity
        self._recent: deque[float] = deque()

    def delay(self, now: float) -> float | None:
        """Count a restart at `now`, in seconds of any steady clock.

        Returns:
            Seconds to wait before it, or None if it would be one too many; then it is not counted.
        """
        allowed, recent = self._intensity, self._recent
        while recent and recent[0] <= now - allowed.period:
            recent.popleft()
        if len(recent) >= allowed.restarts:
            return None
        wait = min(allowed.limit, allowed.first * 2 ** min(len(recent), 64))
        recent.append(now)
        self.total += 1
        return wait


class Run(Protocol):
    """What a child does, as trio's `nursery.start` wants it: it calls `task_status.started()` when it is ready."""

    def __call__(self, *, task_status: trio.TaskStatus[Any]) -> Awaitable[object]: ...


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to run, restart and stop one child.

    To stop it, `drain` is called if there is one (it asks the child to end by itself, returns at once) and the child
    has `shutdown` seconds; then, or at once without `drain`, it is cancelled and has `shutdown` seconds to unwind.
    A child that is still there after that is logged and left behind: trio cannot kill a task, so the supervisor itself
    ends only when the child does; whoever needs a hard end exits the process.
    """

    name: str
    run: Run
    restart: RestartRule = "permanent"
    intensity: Intensity = Intensity()
    shutdown: float = 5.0
    drain: Callable[[], None] | None = None


class State(Enum):
    """Where a child is in its life."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    CRASHED = "crashed"
    ENDED = "ended"
    GIVEN_UP = "given up"


class ChildStatus(NamedTuple):
    """A row for people who ask how the children are."""

    name: str
    state: State
    restarts: int


class _Child(trio.TaskStatus[Any]):
    """One child through all its lives; the task status of the present one."""

    def __init__(self, spec: ChildSpec, changed: Callable[[], None]) -> None:
        self.spec = spec
        self.state = State.WAITING
        self.restarts = Restarts(spec.intensity)
        self.was_ready = False
        self.wait: float = 0
        self.error: BaseException | None = None
        self.gone = trio.Event()
        self.gone.set()
        self._scope = trio.CancelScope()
        self._at_work = False
        self._changed = changed

    def started(self, value: object = None) -> None:
        if self.state is State.STARTING:
            self.state = State.RUNNING
            self.was_ready = True
            self._changed()

    def launch(self, nursery: trio.Nursery) -> None:
        self.state, self.error, self.gone = State.STARTING, None, trio.Event()
        self._scope, self._at_work = trio.CancelScope(), False
        nursery.start_soon(self._live, name=f"child {self.spec.name}")

    async def _live(self) -> None:
        error: BaseException | None = None
        try:
            with self._scope:
                await trio.sleep(self.wait)
                self._at_work = True
                await self.spec.run(task_status=self)
        except BaseException as raised:
            if _is_fatal(raised):
                raise
            error = raised
        self.error = error
        self.state = State.CRASHED
        self.gone.set()
        self._changed()

    async def stop(self) -> bool:
        """Return whether it stopped within its deadline. What it says while it stops is only logged."""
        if not self.gone.is_set():
            await self._drain()
            self._scope.cancel()
            if not await self._wait_until_gone():
                log.error("child does not stop", child=self.spec.name, seconds=self.spec.shutdown)
                return False
        if self.state is State.CRASHED:
            if self.error is not None:
                log.warning("child failed while it was stopped", child=self.spec.name, exc_info=self.error)
            self.state = State.ENDED
        return True

    async def _drain(self) -> None:
        if self.spec.drain is not None and self._at_work:
            try:
                self.spec.drain()
            except Exception as error:
                log.error("child cannot be drained", child=self.spec.name, exc_info=error)
            else:
                await self._wait_until_gone()

    async def _wait_until_gone(self) -> bool:
        with trio.move_on_after(self.spec.shutdown):
            await self.gone.wait()
        return self.gone.is_set()


class Supervisor:
    """Runs children by their specs.

    Args:
        name: for logs and errors.
        children: in the order of their start.
        strategy: which others are restarted with a child that crashed.
        on_restart: called with a child's name for each restart after a crash; must not raise.
        on_give_up: called with a child's name and its exception when it exceeds its intensity; the child stays down,
            the others go on. Without it the supervisor stops them and raises. Must not raise.
    """

    def __init__(
        self,
        name: str,
        children: Sequence[ChildSpec],
        *,
        strategy: Strategy = "one_for_one",
        on_restart: Callable[[str], None] | None = None,
        on_give_up: Callable[[str, BaseException | None], None] | None = None,
    ) -> None:
        names = [spec.name for spec in children]
        if len(set(names)) < len(names):
            raise ValueError(f"supervisor {name!r} has two children of one name: {', '.join(names)}")
        self.name = name
        self._specs = tuple(children)
        self._strategy: Strategy = strategy
        self._on_restart = on_restart
        self._on_give_up = on_give_up
        self._children: list[_Child] = []
        self._changed = trio.Event()
        self._stopping = False
        self._failure: SupervisionError | None = None

    def stop(self) -> None:
        """Ask `run` to stop the children in order and return."""
        self._stopping = True
        self._changed.set()

    def children(self) -> list[ChildStatus]:
        """Return how the children are, in the order of their start."""
        return [ChildStatus(child.spec.name, child.state, child.restarts.total) for child in self._children]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the children until `stop` is called or the supervisor is cancelled; ready when all of them are.

        It can itself be a child, and be run again. The children are shielded from a cancellation of the supervisor,
        which would reach all of them at once: it stops them one by one instead.

        Raises:
            SupervisionError: a child could not be started, or exceeded its intensity.
        """
        self._children = [_Child(spec, self._note_change) for spec in self._specs]
        self._stopping, self._failure = False, None
        async with trio.open_nursery() as watch:
            watch.start_soon(self._stop_when_cancelled)
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    await self._oversee(nursery, task_status)
                    await self._stop_in_reverse(self._children)
            watch.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    async def _oversee(self, nursery: trio.Nursery, task_status: trio.TaskStatus[None]) -> None:
        announced = False
        while not self._stopping:
            self._changed = trio.Event()
            for child in self._children:
                if child.state is State.CRASHED and not self._stopping:
                    await self._settle(child)
            if not self._stopping:
                self._launch_next(nursery)
            if not announced and all(child.was_ready or child.state is State.ENDED for child in self._children):
                task_status.started()
                announced = True
            if not self._stopping:
                await self._changed.wait()

    def _launch_next(self, nursery: trio.Nursery) -> None:
        """Launch those whose turn it is: each waits for those before it, but one for one only the first time."""
        for child in self._children:
            if child.state is State.WAITING:
                child.launch(nursery)
            if child.state is State.STARTING and not (self._strategy == "one_for_one" and child.was_ready):
                return

    async def _settle(self, child: _Child) -> None:
        """Decide what becomes of a child that ended."""
        name, error = child.spec.name, child.error
        rule = child.spec.restart
        if error is None and rule != "permanent":
            child.state = State.ENDED
            return
        reason = _reason(error)
        if not child.was_ready:
            child.state = State.ENDED
            self._fail(StartFailed(f"{name} could not be started: {reason}"), error)
            return
        log.error("child crashed", supervisor=self.name, child=name, reason=reason, exc_info=error)
        if rule == "temporary":
            child.state = State.ENDED
            return
        wait = child.restarts.delay(trio.current_time())
        if wait is None:
            self._give_up(child, reason)
        else:
            await self._restart(child, wait)

    def _give_up(self, child: _Child, reason: str) -> None:
        name, allowed = child.spec.name, child.spec.intensity
        child.state = State.GIVEN_UP
        often = f"{allowed.restarts} restarts in {allowed.period:g} s"
        log.error("child is given up", supervisor=self.name, child=name, reason=reason, after=often)
        if self._on_give_up is not None:
            self._on_give_up(name, child.error)
        else:
            self._fail(RestartsExceeded(f"{name} crashed again after {often}: {reason}"), child.error)

    async def _restart(self, child: _Child, wait: float) -> None:
        others = self._restarted_with(child)
        if not await self._stop_in_reverse(others):
            self._fail(StopFailed(f"{child.spec.name} cannot be restarted: one of its siblings does not stop"), None)
            return
        for one in others:
            one.wait, one.state = 0, State.ENDED if one.spec.restart == "temporary" else State.WAITING
        child.wait, child.state = wait, State.WAITING
        log.info("child is restarted", supervisor=self.name, child=child.spec.name, seconds=wait)
        if self._on_restart is not None:
            self._on_restart(child.spec.name)

    def _restarted_with(self, child: _Child) -> list[_Child]:
        match self._strategy:
            case "one_for_one":
                others: list[_Child] = []
            case "one_for_all":
                others = [one for one in self._children if one is not child]
            case "rest_for_one":
                others = self._children[self._children.index(child) + 1 :]
        return [one for one in others if one.state in (State.STARTING, State.RUNNING)]

    async def _stop_in_reverse(self, children: Sequence[_Child]) -> bool:
        stopped = [await child.stop() for child in reversed(children)]
        return all(stopped)

    def _fail(self, failure: SupervisionError, cause: BaseException | None) -> None:
        failure.__cause__ = cause
        self._failure = failure
        self.stop()

    async def _stop_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.stop()

    def _note_change(self) -> None:
        self._changed.set()


def _leaves(error: BaseException) -> list[BaseException]:
    """Return what is in an exception group, or the exception."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    inner = cast("BaseExceptionGroup[BaseException]", error).exceptions
    return [leaf for one in inner for leaf in _leaves(one)]


def _is_fatal(error: BaseException) -> bool:
    """Whether it is not about the child, but about the process, or trio's own business."""
    return any(isinstance(leaf, KeyboardInterrupt | SystemExit | trio.Cancelled) for leaf in _leaves(error))


def _reason(error: BaseException | None) -> str:
    if error is None:
        return "it returned"
    return masked("; ".join(f"{type(leaf).__name__}: {leaf}" for leaf in _leaves(error)[:3]))
