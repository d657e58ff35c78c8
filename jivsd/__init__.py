"""jivsd runs workflows that must not be lost. What a plugin needs is here."""

from jivsd.authoring.context import Context, Job, Lock, Nursery, Race, Scope
from jivsd.authoring.errors import (
    Cancelled,
    ChildFailed,
    Deadlock,
    Failure,
    Frozen,
    InvalidDefinition,
    JivsdError,
    NotDelivered,
    NotDurable,
    StepFailed,
    TimedOut,
)
from jivsd.authoring.retry import NO_RETRY, Retry
from jivsd.authoring.routes import Daemon, RouteError, RunState, route
from jivsd.authoring.secrets import Secret
from jivsd.authoring.steps import Step, StepContext, Transaction, step
from jivsd.authoring.updates import update
from jivsd.authoring.workflows import Workflow, query, signal, workflow

__all__ = [
    "NO_RETRY",
    "Cancelled",
    "ChildFailed",
    "Context",
    "Daemon",
    "Deadlock",
    "Failure",
    "Frozen",
    "InvalidDefinition",
    "JivsdError",
    "Job",
    "Lock",
    "NotDelivered",
    "NotDurable",
    "Nursery",
    "Race",
    "Retry",
    "RouteError",
    "RunState",
    "Scope",
    "Secret",
    "Step",
    "StepContext",
    "StepFailed",
    "TimedOut",
    "Transaction",
    "Workflow",
    "query",
    "route",
    "signal",
    "step",
    "update",
    "workflow",
]
