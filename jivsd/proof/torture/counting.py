"""Which kind of command a node is, for the report."""

from __future__ import annotations

from typing import Final

from jivsd.proof.torture import language as say


def counted_as(node: say.Node_) -> str:
    """The kind of a node."""
    match node:
        case say.Work(how="plain"):
            return "plain step"
        case say.Work(how="patient"):
            return "step that waits when cancelled"
        case say.Work() if node.beats and node.fails:
            return "step with heartbeats"
        case say.Work() if node.doomed:
            return "step that fails for good"
        case say.Work() if node.fails:
            return "step that is retried"
        case say.Work() if node.undo:
            return "step with compensation"
        case say.Expire():
            return "fail_after" if node.fail else "move_on_after"
        case say.Within():
            return "fail_after" if node.fail else "move_on_after"
        case say.Sleep():
            return "sleep_until" if node.until else "sleep"
        case say.Await(limited=True) | say.Vain(what="until"):
            return "wait_until with a timeout"
        case say.Receive(limited=True) | say.Vain(what="signal"):
            return "wait_signal with a timeout"
        case say.Map(what="runs"):
            return "map of child runs"
        case say.Ask():
            return "update" if node.nodes is None else "update with an async handler"
        case say.Draw():
            return node.what
        case _:
            return _KINDS[type(node)]


_KINDS: Final[dict[type[say.Node], str]] = {
    say.Work: "step",
    say.Ledger: "transaction step",
    say.Late: "step that times out",
    say.Await: "wait_until",
    say.Receive: "wait_signal",
    say.Emit: "emit",
    say.Attribute: "set_attributes",
    say.Fan: "nursery",
    say.Map: "map",
    say.Race: "race",
    say.Saga: "saga",
    say.Lock: "lock",
    say.Scope: "cancel_scope",
    say.Cleanup: "shield",
    say.Child: "child run",
    say.Launch: "start_child",
    say.Hear: "wait_until",
    say.Tell: "signal",
    say.Raise: "raise",
    say.Try: "try",
    say.Stuck: "step that a person decides",
    say.Hold: "hold",
    say.Arrive: "wait_until",
    say.Gather: "wait_until",
}
