"""Commands: what workflow code asks for, as plain records. The machine gives each its path when it is issued.

`name` is the last part of the path; `args_hash` is what a replay compares: it stands for what must not change under
a running workflow, so a timer's duration is not in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from jivsd import attributes
from jivsd.authoring.paths import check_name
from jivsd.records import hash_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from jivsd.authoring.signature import Codec
    from jivsd.authoring.steps import Step
    from jivsd.records import UpdateDone


ATTRIBUTES: Final = "!attributes"
"""What the path of a change of attributes ends with, but for its count: no name of an author's can be that."""
MAX_KEY: Final = 512
"""Characters that a lock key may have."""
MAX_TOPIC: Final = 200
"""Characters that the topic of a published event may have."""


class Command:
    """Base of all commands. `path` is set when the command is issued."""

    __slots__ = ("args_hash", "name", "path")
    kind: ClassVar[str] = ""

    def __init__(self, name: str, args_hash: str = "") -> None:
        self.name = name
        self.args_hash = args_hash
        self.path = ""

    def __repr__(self) -> str:
        return f"<{self.kind} {self.path or self.name}>"


class StepCall(Command):
    """Run a step. `unknown`: a compensation whose step may or may not have happened."""

    __slots__ = ("args", "step", "unknown")
    kind = "step"

    def __init__(self, step: Step[..., Any], args: bytes, *, unknown: bool = False) -> None:
        self.name = step.name
        self.args_hash = hash_of(args)
        self.path = ""
        self.step = step
        self.args = args
        self.unknown = unknown


class ChildCall(Command):
    """Start a child run and wait for its end."""

    __slots__ = ("compensation", "input", "result", "timeout", "workflow", "workflow_id")
    kind = "child"

    def __init__(self, workflow: str, input: bytes) -> None:
        super().__init__(workflow, hash_of(input))
        self.workflow = workflow
        self.input = input
        self.result: Codec | None = None
        self.timeout: int | None = None
        self.workflow_id: str | None = None
        self.compensation: tuple[Step[..., Any], bytes] | None = None
        """The step that undoes the completed child, and the child's arguments as a JSON array."""


class Sleep(Command):
    """Park until a time, in microseconds since the epoch."""

    __slots__ = ("deadline",)
    kind = "timer"

    def __init__(self, deadline: int, name: str = "sleep") -> None:
        super().__init__(name)
        self.deadline = deadline


class WaitSignal(Command):
    __slots__ = ("codec", "signal")
    kind = "signal"

    def __init__(self, signal: str, codec: Codec) -> None:
        super().__init__(check_name(signal, "a signal's name"))
        self.signal = signal
        self.codec = codec


class WaitUntil(Command):
    __slots__ = ("predicate",)
    kind = "until"

    def __init__(self, predicate: Callable[[], Any]) -> None:
        if not callable(predicate):
            raise TypeError(
                f"ctx.wait_until takes a function, as in `ctx.wait_until(lambda: self.approved)`, "
                f"not {_named(predicate)}"
            )
        super().__init__("wait_until")
        self.predicate = predicate


class SideEffect(Command):
    __slots__ = ("codec", "function")
    kind = "marker"

    def __init__(self, name: str, function: Callable[[], Any], codec: Codec) -> None:
        super().__init__(name)
        self.function = function
        self.codec = codec


class SetAttributes(Command):
    """Change the run's attributes. `changes`: as JSON; null takes one away."""

    __slots__ = ("changes",)
    kind = "attributes"

    def __init__(self, changes: bytes) -> None:
        super().__init__(ATTRIBUTES, hash_of(changes))
        self.changes = changes


class Publish(Command):
    """Publish an event through the outbox."""

    __slots__ = ("payload", "topic")
    kind = "publish"

    def __init__(self, topic: str, payload: bytes) -> None:
        super().__init__("emit", hash_of(topic.encode() + b"\0" + payload))
        self.topic = topic
        self.payload = payload


class ContinueAsNew(Command):
    """End the run and begin a new one in its place. `input`: as JSON."""

    __slots__ = ("input",)
    kind = "continue"

    def __init__(self, input: bytes) -> None:
        super().__init__("continue_as_new", hash_of(input))
        self.input = input


class StartChild(Command):
    """Start a run that lives on by itself."""

    __slots__ = ("call",)
    kind = "start"

    def __init__(self, call: ChildCall) -> None:
        super().__init__(call.name, call.args_hash)
        self.call = call


class SendSignal(Command):
    """Send a signal to another run. `run`: its id, or "workflow:workflow_id"."""

    __slots__ = ("payload", "run", "signal")
    kind = "send"

    def __init__(self, run: str, signal: str, payload: bytes) -> None:
        super().__init__("signal", hash_of(f"{run}\0{signal}\0".encode() + payload))
        self.run = run
        self.signal = check_name(signal, "a signal's name")
        self.payload = payload


class Answer(Command):
    """Record what has become of an update. `outcome`: None while its handler is at work."""

    __slots__ = ("message_id", "outcome", "update")
    kind = "update"

    def __init__(self, update: str, message_id: str) -> None:
        super().__init__(update)
        self.update = update
        self.message_id = message_id
        self.outcome: UpdateDone | None = None


class VersionCall(Command):
    __slots__ = ("change", "maximum", "minimum")
    kind = "version"

    def __init__(self, change: str, minimum: int, maximum: int) -> None:
        super().__init__(check_name(change, "a change id"))
        self.change = change
        self.minimum = minimum
        self.maximum = maximum


class Lock(Command):
    """Wait for a lock key; the run's own one is not asked for by its code. `at_once`: or fail if it is held."""

    __slots__ = ("at_once", "key")
    kind = "lock"

    def __init__(self, key: str, *, at_once: bool = False, own: bool = False) -> None:
        super().__init__("lock", "" if own else hash_of(key.encode()))
        self.key = key
        self.at_once = at_once


def _named(thing: object) -> str:
    """What an author sees in the code; never an address, which would be another one in a replay."""
    return str(getattr(thing, "__qualname__", None) or f"a value of type {type(thing).__qualname__}")


def step_call(step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> StepCall:
    """Raises TypeError when `step` is not a step or the arguments do not fit it."""
    try:
        signature, _ = step.signature, step.mode
    except AttributeError:
        raise TypeError(f"ctx.step takes a function declared with @step, not {_named(step)}") from None
    return StepCall(step, signature.encode(args, kwargs))


def set_attributes(present: dict[str, Any], changes: dict[str, Any]) -> SetAttributes:
    """Raises ValueError when a name or value is not one of an attribute, or there would be too many."""
    attributes.checked(attributes.merged(present, changes))
    return SetAttributes(msgspec.json.encode(changes))


def child_call(workflow: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ChildCall:
    """Raises TypeError when `workflow` is not one, or the arguments do not fit it."""
    if isinstance(workflow, str):
        if len(args) > 1 or kwargs:
            raise TypeError(f"ctx.run({workflow!r}, input): by name, the one argument is the input")
        return ChildCall(workflow, msgspec.json.encode(args[0] if args else None))
    if not hasattr(workflow, "lock_fields"):
        raise TypeError(f"ctx.run takes a workflow or a workflow's name, not {_named(workflow)}")
    command = ChildCall(workflow.name, workflow.signature.encode_input(args, kwargs))
    command.result = workflow.signature.result
    command.timeout = workflow.timeout
    command.workflow_id = workflow.id
    if workflow.compensation is not None:
        command.compensation = (workflow.compensation, workflow.signature.encode(args, kwargs))
    return command


def lock_key(key: str) -> str:
    """Raises ValueError when a text cannot be a lock key."""
    if not key or len(key) > MAX_KEY or "\0" in key:
        raise ValueError(f"a lock key has 1 to {MAX_KEY} characters without NUL, not {key[:40]!r}")
    return key


def publish_call(topic: str, payload: Any) -> Publish:
    """Raises ValueError or TypeError when the topic is none, or the payload has no JSON form."""
    if not topic or len(topic) > MAX_TOPIC or not topic.isprintable():
        raise ValueError(f"a topic has 1 to {MAX_TOPIC} printable characters, not {topic[:40]!r}")
    return Publish(topic, json_of(payload, f"the payload of an event for {topic!r}"))


def json_of(value: Any, what: str) -> bytes:
    """Raises TypeError when a value has no JSON form."""
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise TypeError(f"{what} has no JSON form: {error}") from None
