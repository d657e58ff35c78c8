"""What is secret of a workflow's runs: in their inputs and results, their messages, their steps' results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from jivsd.authoring.secrets import Mask, Veil, mask_of
from jivsd.records import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jivsd.authoring.workflows import Workflow
    from jivsd.records import Event

ALL: Final = Mask()
ALL.whole = True


class Secrets:
    """The masks of one version of a workflow. False: it has no secrets."""

    def __init__(self, workflow: Workflow[..., Any], steps: Mapping[str, Mask]) -> None:
        self.input = mask_of(workflow.signature.input_kind)
        self.output = mask_of(workflow.signature.result.kind)
        handlers = {**workflow.signals, **workflow.updates}
        self._messages = {name: mask_of(handler.signature.input_kind) for name, handler in handlers.items()}
        self._messages |= {name: mask_of(codec.kind) for name, codec in workflow.messages.items()}
        self._answers = {name: mask_of(one.signature.result.kind) for name, one in workflow.updates.items()}
        self._queries = {name: mask_of(one.signature.result.kind) for name, one in workflow.queries.items()}
        self._steps = steps

    def __bool__(self) -> bool:
        return self.input is not None or self.output is not None or self.beyond_input or any(self._queries.values())

    @property
    def beyond_input(self) -> bool:
        """Whether there may be some in the journal after its beginning."""
        return bool(self._steps) or any(self._messages.values()) or any(self._answers.values())

    def query(self, name: str) -> Mask | None:
        """Of the answer to a query."""
        return self._queries.get(name)

    def answer(self, name: str) -> Mask | None:
        """Of the answer to an update."""
        return self._answers.get(name)

    def veil(self, input: bytes, events: Iterable[Event] = ()) -> Veil:
        """What hides the secrets of a run with this input and these events."""
        found: set[str] = set() if self.input is None else self.input.secrets(msgspec.json.decode(input))
        for event in events:
            for mask, field in self._parts(event):
                payload = msgspec.json.decode(event.payload)
                found |= mask.secrets(payload.get(field))
        return Veil(found)

    def shown(self, event: Event, veil: Veil) -> bytes:
        """The payload of an event as people may see it."""
        payload = msgspec.json.decode(event.payload)
        for mask, field in self._parts(event):
            if field in payload:
                payload[field] = mask.hide(payload[field])
        return msgspec.json.encode(veil.value(payload))

    def _parts(self, event: Event) -> list[tuple[Mask, str]]:
        """Which fields of an event's payload have secrets, and where."""
        match event.kind:
            case Kind.STARTED | Kind.CONTINUED_AS_NEW:
                found = [(self.input, "input")]
            case Kind.ENDED:
                found = [(self.output, "output")]
            case Kind.SIGNAL | Kind.UPDATE:
                name = msgspec.json.decode(event.payload)["name"]
                found = [(self._messages.get(name), "payload")]
            case Kind.UPDATE_DONE:  # it does not say of which update it is
                found = [(mask, "result") for mask in self._answers.values()]
            case Kind.STEP_DONE:
                found = [(self._steps.get(event.path.rpartition("/")[2].partition("#")[0]), "result")]
            case _:
                found = list[tuple[Mask | None, str]]()
        return [(mask, field) for mask, field in found if mask is not None]
