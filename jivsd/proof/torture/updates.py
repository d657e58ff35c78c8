"""Updates: sent to the runs that wait for them, and compared with what the journal says of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from jivsd.client import ClientError
from jivsd.proof.daemons import insist
from jivsd.proof.torture.found import Found
from jivsd.proof.torture.language import NOT_YET, PERFORM, PUT
from jivsd.records import Kind, Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jivsd.client import Client
    from jivsd.proof.torture.account import Account, Case
    from jivsd.proof.torture.evidence import Life
    from jivsd.proof.torture.plans import Plan, Question

ASK_AGAIN = (0.1, 2.0)
"""Seconds before an update is sent again that came too early: at first, and at last."""
REFUSALS = ("Taken", "Failure", NOT_YET)
"""How of two updates the second is answered: there was one, the run has come to its end, or it went on as a new one
whose code has not begun."""
ANSWER_WAIT = "2s"
"""How long one request waits for an answer."""


class Updater:
    """Sends the updates of a case, and notes the answers."""

    def __init__(self, client: Client, account: Account, case: Case) -> None:
        self._client = client
        self._account = account
        self._case = case

    async def send(self, run_id: str, question: Question) -> None:
        """Send an update, and its rival beside it."""
        async with trio.open_nursery() as nursery:
            for message_id in question.message_ids:
                nursery.start_soon(self._send, run_id, question, message_id)

    async def _send(self, run_id: str, question: Question, message_id: str) -> None:
        ask = question.ask
        name = PUT if ask.nodes is None else PERFORM
        payload: dict[str, Any] = {"to": ask.name, "amount": ask.amount, "early": ask.early}
        if ask.nodes is not None:
            payload["nodes"] = ask.nodes
        send = partial(self._client.update, run_id, name, payload, message_id=message_id, wait=ANSWER_WAIT)
        answer = await self._answer(run_id, send)
        if answer is not None:
            self._account.answered(self._case, run_id, message_id, answer)
            if self._case.scenario.again and (again := await self._answer(run_id, send)) != answer:
                self._account.complain("twice", run_id, f"update {message_id} was answered {answer!r}, then {again!r}")

    async def _answer(self, run_id: str, send: Any) -> str | None:
        """The answer that is recorded, as JSON, or the type of the error; None: it was refused, and is not recorded."""
        pause, longest = ASK_AGAIN
        while True:
            try:
                updated = await insist(send)
            except ClientError as error:
                if error.code == "update_failed":
                    return error.data["error"]["type"]
                early = error.code == "invalid" and f": {NOT_YET}: " in str(error)
                absent = error.code == "not_found" and run_id != self._case.run_id
                if not (early or absent):
                    if error.code in ("invalid", "ended"):
                        return None
                    raise
                await trio.sleep(pause)
                pause = min(2 * pause, longest)
            else:
                if updated.answered:
                    return msgspec.json.encode(updated.value).decode()


def check(lives: Sequence[Life], plan: Plan, told: Mapping[str, str], *, loose: bool) -> Iterator[Found]:
    """Each update was applied once and answered once, as its sender was told and as the model says."""
    lines = [line for life in lives for line in life.journal if line.kind in (Kind.UPDATE, Kind.UPDATE_DONE)]
    sent = {str(line.payload["message_id"]): line for line in lines if line.kind == Kind.UPDATE}
    answers = {str(line.payload["message_id"]): line for line in lines if line.kind == Kind.UPDATE_DONE}
    if len(sent) + len(answers) != len(lines):
        yield Found("twice", "", f"{len(lines)} updates and answers are recorded: {len(sent)} and {len(answers)}")
    for message_id, line in sent.items():
        if message_id not in answers and lives[-1].row.status is not Status.TERMINATED:
            yield Found("lost", line.path, "it was applied, and never answered")
    known = {message_id for question in plan.asks for message_id in question.message_ids}
    for message_id, line in answers.items():
        if message_id not in known:
            yield Found("unknown", line.path, "it is answered; the model knows no such update")
        if message_id not in sent:
            yield Found("lost", line.path, "it is answered, and its update is not recorded")
    for message_id, answer in told.items():
        said = _said(answers[message_id].payload) if message_id in answers else None
        if said != answer:
            yield Found("lost", f"!update[{message_id}]", f"it was answered {answer}; its record says {said}")
    if not loose:
        for question in plan.asks:
            given = [_said(answers[one].payload) for one in question.message_ids if one in answers]
            applied = given if len(given) == 1 else [answer for answer in given if answer not in REFUSALS]
            if len(applied) != 1 or (str(question.answer) != applied[0] and question.answer is not None):
                path = f"!update[{question.message_ids[0]}]"
                yield Found("model", path, f"the answers are {given}; the model says one is {question.answer}")


def _said(done: Mapping[str, Any]) -> str:
    """An answer, as its sender is told it."""
    error = done.get("error")
    return msgspec.json.encode(done.get("result")).decode() if error is None else str(error["type"])
