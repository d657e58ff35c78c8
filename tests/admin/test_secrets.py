"""Nothing that is marked as secret is seen by anybody; the journal has it."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from admin import vault
from admin.serving import serving
from jivsd.admin.access import Role, Token
from jivsd.testing import Env

API = "/api/v1"
SECRETS = ("open-sesame", "pin-4711", "token-of-ann", "swapped-for", "new-word", "hidden-in-child", "the-child-s-token")


@asynccontextmanager
async def api(folder, **options):
    async with Env(vault) as env, serving(folder, env.engine, **options) as served:
        yield served.tcp if options else served.unix, env


async def everything(http, run_id):
    """All that can be seen of a run, as text."""
    place = f"{API}/runs/{run_id}"
    places = [place, f"{place}/timeline", f"{place}/result", f"{place}/why", f"{API}/runs?limit=500"]
    places += [f"{API}/incidents?state=ALL", f"{API}/incidents/groups?state=ALL"]
    texts = [(await http.get(one)).text for one in places]
    texts.append((await http.post(f"{place}/queries/current")).text)
    return "\n".join(texts)


@pytest.mark.parametrize(("how", "status"), [("well", "COMPLETED"), ("refused", "FAILED"), ("stuck", "RUNNING")])
async def test_nothing_secret_is_seen_of_a_run(tmp_path, capfd, how, status):
    async with api(tmp_path) as (http, env):
        body = {"workflow": "vault", "input": {"login": {"user": "ann", "password": "open-sesame"}, "how": how}}
        started = await http.post(f"{API}/runs", json=body)
        assert started.json()["run"]["input"]["login"] == {"user": "ann", "password": "***"}
        run_id = started.json()["run"]["run_id"]
        updated = await http.post(
            f"{API}/runs/{run_id}/updates/swap?wait=5s", json={"payload": {"user": "b", "password": "new-word"}}
        )
        assert updated.json()["value"] == {"text": "***", "days": 1}
        await http.post(f"{API}/runs/{run_id}/signals/enter", json={"payload": "pin-4711"})
        if how == "stuck":
            await env.sleep("1s")
        else:
            ended = (await http.get(f"{API}/runs/{run_id}/result?wait=5s")).json()
            assert ended["status"] == status
        seen = await everything(http, run_id)
        assert [secret for secret in SECRETS if secret in seen] == []
        assert '"said":"<***>"' in seen
        assert '"user":"ann"' in seen
        if how == "refused":
            assert "the password '***' is wrong" in seen
        if how == "stuck":
            assert "stuck with ***" in seen
        acts = {"action": "terminate", "runs": [run_id]}
        assert "open-sesame" not in (await http.post(f"{API}/runs/actions", json=acts)).text
        journal = b"".join(event.payload for event in await env.events(run_id))
        for secret in (b"open-sesame", b"pin-4711", b"token-of-ann", b"new-word"):
            assert secret in journal
        log = "".join(capfd.readouterr())
        assert [secret for secret in SECRETS if secret in log] == []


async def test_a_parent_says_no_more_of_its_child_than_the_child(tmp_path):
    async with api(tmp_path) as (http, env):
        run = await env.start("owner", "ann")
        assert await env.result(run) == "the-child-s-token"
        (ended,) = [
            one for one in (await http.get(f"{API}/runs/{run}/timeline")).json()["items"] if one["kind"] == "ChildEnded"
        ]
        assert ended["payload"]["output"] == {"text": "***", "days": 1}


async def test_only_an_admin_has_the_journal_revealed(tmp_path):
    tokens = [Token(role.name, f"token-{role.name}", role) for role in Role]
    async with api(tmp_path, tokens=tokens) as (http, env):
        run = await env.start("vault", {"login": {"user": "ann", "password": "open-sesame"}})

        async def timeline(role, query=""):
            headers = {"Authorization": f"Bearer token-{role.name}"}
            return await http.get(f"{API}/runs/{run}/timeline{query}", headers=headers)

        assert "open-sesame" not in (await timeline(Role.ADMIN)).text
        assert "open-sesame" in (await timeline(Role.ADMIN, "?reveal=true")).text
        assert (await timeline(Role.OPERATE, "?reveal=true")).status_code == 403


async def test_the_same_input_is_the_same_whatever_is_shown_of_it(tmp_path):
    async with api(tmp_path) as (http, _):
        for word, status in (("open-sesame", 202), ("open-sesame", 202), ("other-word", 409)):
            login = {"user": "ann", "password": word}
            body = {"workflow": "vault", "input": {"login": login}, "idempotency_key": "k"}
            answered = await http.post(f"{API}/runs", json=body)
            assert answered.status_code == status
            assert word not in answered.text


async def test_code_that_cannot_be_loaded_any_more_hides_all(tmp_path, monkeypatch):
    async with api(tmp_path) as (http, env):
        run = await env.start("vault", {"login": {"user": "ann", "password": "open-sesame"}})
        monkeypatch.setattr(type(env.engine.code), "secrets", lambda *_: None)
        shown = (await http.get(f"{API}/runs/{run}")).json()
        assert shown["input"] == "***"
        events = (await http.get(f"{API}/runs/{run}/timeline")).json()["items"]
        assert {event["payload"] for event in events} == {"***"}


async def test_a_form_knows_what_is_secret(tmp_path):
    async with api(tmp_path) as (http, _):
        (child,) = [one for one in (await http.get(f"{API}/workflows")).json()["items"] if one["name"] == "child"]
        login = child["input_schema"]["$defs"]["Login"]["properties"]["password"]
        assert (login["format"], login["writeOnly"]) == ("password", True)
