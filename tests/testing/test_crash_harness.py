"""The harness finds what it is for: workflows and engines that a crash harms."""

from __future__ import annotations

import pytest
import trio
from engine import commands

from jivsd.engine import effects
from jivsd.engine.actor import Actor
from jivsd.records import Kind, Status
from jivsd.testing import crash_everywhere
from testing import forgetful


async def not_idempotent(env):
    forgetful.remembered.clear()
    await env.ended(await env.start("not-idempotent"))


async def global_state(env):
    forgetful.remembered.clear()
    await env.ended(await env.start("global-state"))


CRASH = r"after a crash right before append \d+ of \d+"
LEFT = "when every run leaves memory whenever it can"


@pytest.mark.parametrize(("scenario", "when"), [(not_idempotent, CRASH), (global_state, LEFT)])
def test_a_workflow_that_a_crash_or_a_wait_harms_is_found(scenario, when):
    with pytest.raises(AssertionError, match=rf"{when}:\n- .* its output is [23]"):
        crash_everywhere([forgetful], scenario)


async def cancelled_parent(env):
    commands.fresh_world()
    run = await env.start("children", ["child:good"])
    await trio.sleep(5)
    await env.cancel(run)
    assert (await env.ended(run)).status is Status.CANCELLED


def test_an_engine_that_does_not_tell_a_child_again_is_found(monkeypatch):
    original = effects.carry_out

    def without_children(actor, entry):
        if not entry.cancelling:
            original(actor, entry)

    monkeypatch.setattr(effects, "carry_out", without_children)
    with pytest.raises(AssertionError, match="it is COMPLETED instead of CANCELLED"):
        crash_everywhere([commands], cancelled_parent)


def test_an_engine_that_records_twice_is_found(monkeypatch):
    original = Actor.append

    def twice(self, kind, *args, **rest):
        original(self, kind, *args, **rest)
        if kind is Kind.STEP_DONE:
            original(self, kind, *args, **rest)

    async def one_step(env):
        await env.ended(await env.start("patient", 60))

    monkeypatch.setattr(Actor, "append", twice)
    with pytest.raises(AssertionError, match="book is recorded twice"):
        crash_everywhere([commands], one_step)
