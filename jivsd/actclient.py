"""The client's calls that act on many runs: those of long work that goes on request by request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jivsd.admin.actwire import ActionsBody, AllBody, FilterBody
from jivsd.admin.wire import MAX_PAGE
from jivsd.asking import Calls
from jivsd.engine.api import Act, Acted, Acts, Switched

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jivsd.store.api import RunFilter

PATIENCE: Final = 300.0
"""Seconds to wait for an answer: a call takes up runs for about two, each of which may take a few more."""


class ActCalls(Calls):
    """What a client can do to many runs."""

    async def act_on(self, act: Act, refs: Sequence[str], *, dry_run: bool = False) -> list[Acted]:
        """Do the same to some runs, each by itself; return what came of each, in order."""
        results: list[Acted] = []
        left = list(refs)
        while left:
            body = ActionsBody.of(act, runs=left[:MAX_PAGE], dry_run=dry_run)
            page = (await self._post("/runs/actions", Acts, body, patience=PATIENCE)).items
            reached = [one for one in page if one.result != "left"]
            results += reached
            left = left[len(reached) :]
        return results

    async def act_on_page(
        self, act: Act, where: RunFilter, *, limit: int = 100, cursor: str | None = None, dry_run: bool = False
    ) -> Acts:
        """Do the same to a page of the runs of a filter; with `dry_run` only say to which, and how many more."""
        which = FilterBody.of(where)
        body = ActionsBody.of(act, filter=which, limit=limit, cursor=cursor, dry_run=dry_run)
        return await self._post("/runs/actions", Acts, body, patience=PATIENCE)

    async def act_on_all(
        self, act: Act, where: RunFilter, *, on_progress: Callable[[int], None] = lambda _: None
    ) -> list[Acted]:
        """Do the same to all runs of a filter; return what came of each, newest first.

        Runs that are started meanwhile are left alone. `on_progress` is told now and then how many have had their
        turn; what was done stays so if the call is ended.
        """
        results: list[Acted] = []
        cursor: str | None = None
        while True:
            page = await self.act_on_page(act, where, limit=MAX_PAGE, cursor=cursor)
            results += page.items
            cursor = page.next
            on_progress(len(results))
            if cursor is None:
                return results

    async def pause_all(
        self, workflow: str | None = None, *, reason: str = "", on_progress: Callable[[int], None] = lambda _: None
    ) -> Switched:
        """Pause all open runs, or those of one workflow. Those that are started afterwards are not held."""
        return await self._switch_all("pause", AllBody(workflow, reason), on_progress)

    async def resume_all(
        self, workflow: str | None = None, *, reason: str = "", on_progress: Callable[[int], None] = lambda _: None
    ) -> Switched:
        """Let all paused runs go on, or those of one workflow."""
        return await self._switch_all("resume", AllBody(workflow, reason), on_progress)

    async def _switch_all(self, action: str, body: AllBody, on_progress: Callable[[int], None]) -> Switched:
        done, refusals, refused = 0, 0, list[Acted]()
        while True:
            page = await self._post(f"/runs/{action}-all", Switched, body, patience=PATIENCE)
            done, refusals = done + page.done, refusals + page.refusals
            refused += page.refused
            on_progress(done)
            if page.next is None:
                return Switched(done, refusals, refused, None)
            body = AllBody(body.workflow, body.reason, page.next)
