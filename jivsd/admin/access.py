"""Who may do what: tokens with roles, and a record of every action (who, when, what, and what came of it)."""

from __future__ import annotations

import hmac
from enum import IntEnum
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jivsd import logs
from jivsd.admin.exchange import asked
from jivsd.admin.http import caller
from jivsd.admin.looks import Look
from jivsd.admin.problems import Problem, problem_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jivsd.admin.exchange import Response
    from jivsd.admin.http import Called, Handler

LOOKS: Final = frozenset({"GET", "HEAD"})
"""Methods that change nothing, and are not recorded."""

audit = logs.get("jivsd.audit")


class Role(IntEnum):
    """What a token is good for; each may what those before it may.

    READ looks. OPERATE starts runs, talks to them and mends them. ADMIN changes what all runs depend on: plugins,
    quarantines, what is kept.
    """

    READ = 1
    OPERATE = 2
    ADMIN = 3


class Token(NamedTuple):
    """Lets whoever presents it in; `name` stands in records."""

    name: str
    secret: str
    role: Role = Role.ADMIN


def found(tokens: Iterable[Token], given: str) -> Token | None:
    """The token that was presented, if it is one: all are compared, so that the time tells nothing."""
    match: Token | None = None
    for token in tokens:
        if hmac.compare_digest(given.encode("latin1", "replace"), token.secret.encode()):
            match = token
    return match


def admin_only(handler: Called) -> Called:
    """What only the role ADMIN may do."""
    handler.__dict__["role"] = Role.ADMIN
    return handler


def only_looks(handler: Called) -> Called:
    """What changes nothing although it is not a GET, because it has a body: it is open to READ and not recorded."""
    handler.__dict__["role"] = Role.READ
    return handler


def need(role: Role) -> None:
    """Raises Problem (403) when the request's token has not this role."""
    own: Role = asked().state.get("role", Role.ADMIN)
    if own < role:
        detail = f"this needs a token with the role {role.name.lower()}; yours has {own.name.lower()}"
        raise Problem(403, "forbidden", detail, {"role": role.name.lower()})


def guarded(handler: Handler, method: str) -> Handler:
    """A handler that asks for the role that it needs, and whose actions are recorded."""
    needed = getattr(handler, "role", None) or (Role.READ if method in LOOKS else Role.OPERATE)

    @wraps(handler)
    async def looking(**arguments: Any) -> Response:
        request = asked()
        need(needed)
        await request.read()
        look = request.look = Look(request.state["room"].looks)
        try:
            await look.take()
            return await handler(**arguments)
        finally:
            look.give_back()

    if method in LOOKS or needed == Role.READ:
        return looking

    @wraps(handler)
    async def recorded(**arguments: Any) -> Response:
        request = asked()
        facts = {"who": caller(), "what": f"{method} {request.path}"}
        try:
            need(needed)
            await request.read()
            response = await handler(**arguments)
        except Exception as error:
            problem = problem_of(error)
            audit.info("action", **facts, status=problem.status, code=problem.code)
            raise problem from (error if problem is not error else None)
        audit.info("action", **facts, status=response.status)
        return response

    return recorded
