"""The routes that act on many runs: by name, by filter, or all of them to be paused or resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jivsd.admin.actwire import ActionsBody, AllBody
from jivsd.admin.filtering import where_of
from jivsd.admin.http import Route, answer, body_of, caller, operation
from jivsd.admin.problems import Problem
from jivsd.engine.api import Acts, Switched

if TYPE_CHECKING:
    from jivsd.admin.exchange import Response
    from jivsd.engine.engine import Engine


class ActingRoutes:
    """Answers /runs/actions, /runs/pause-all and /runs/resume-all."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [
            ("POST", "/runs/actions", self.act),
            ("POST", "/runs/pause-all", self.pause_all),
            ("POST", "/runs/resume-all", self.resume_all),
        ]

    @operation(body=ActionsBody, required=True, answers={200: Acts})
    async def act(self) -> Response:
        """Do the same to many runs: 200 with a result for each, whatever came of it.

        A call works for about two seconds. Of a filter it takes up to `limit` runs, and `next` is the `cursor` to go
        on with, until there is none; of named runs those whose turn did not come have the result `left`.
        """
        body = await body_of(ActionsBody)
        act = body.act()
        if act.action == "signal" and not act.signal:
            raise Problem(422, "invalid", "the field `signal` is missing: which one?", {"field": "signal"})
        if (body.runs is None) == (body.filter is None):
            raise Problem(422, "invalid", "give one of `runs` and `filter`", {"field": "filter"})
        if body.filter is None:
            results = await self._engine.act_on(act, body.runs or (), by=caller(), dry_run=body.dry_run)
            return answer(Acts(results, sum(one.result == "left" for one in results), None))
        where = where_of(body.filter, body.filter.attributes)
        acts = await self._engine.act_on_all(
            act, where, by=caller(), limit=body.limit, cursor=body.cursor, dry_run=body.dry_run
        )
        return answer(acts)

    @operation(body=AllBody, answers={200: Switched})
    async def pause_all(self) -> Response:
        """Pause all open runs, or those of one workflow; call again with `next` as `cursor` until it is null.

        Runs that are started afterwards are not held: for that a workflow is quarantined.
        """
        body = await body_of(AllBody, required=False)
        return answer(await self._engine.pause_all(body.workflow, by=caller(), reason=body.reason, cursor=body.cursor))

    @operation(body=AllBody, answers={200: Switched})
    async def resume_all(self) -> Response:
        """Let all paused runs go on, or those of one workflow; call again with `next` as `cursor` until it is null."""
        body = await body_of(AllBody, required=False)
        return answer(await self._engine.resume_all(body.workflow, by=caller(), reason=body.reason, cursor=body.cursor))
