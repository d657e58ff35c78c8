"""Whatever is wrong, the answer is a problem document that says so in one sentence, and nothing has happened."""

from __future__ import annotations

import io

import pytest
from werkzeug.exceptions import ImATeapot

from admin.serving import Refusing, serving
from jivsd import logs
from jivsd.admin.problems import problem_of
from jivsd.engine.api import Conflict, EngineError, Gone, Invalid, NotFound, Unavailable
from jivsd.store.api import BadCursor, DamagedRow, StoreAway, StoreError

API = "/api/v1"


def problem(response, status, code):
    """The response's problem document, checked."""
    document = response.json()
    assert (response.status_code, document["status"], document["code"]) == (status, status, code), document
    assert response.headers["content-type"] == "application/problem+json"
    assert document["type"] == f"urn:jivsd:problem:{code}"
    assert document["title"]
    assert document["detail"]
    assert "\n" not in document["detail"]
    return document


BODIES = [
    (
        "malformed",
        b'{"workflow": "same", "input": }',
        400,
        "bad_json",
        "not JSON: expecting value, in line 1, column 31",
    ),
    ("empty", b"", 400, "bad_json", "not JSON: it is empty"),
    ("not UTF-8", b'{"workflow": "same", "input": "\xff"}', 400, "bad_json", "not UTF-8"),
    (
        "deep",
        b'{"workflow": "same", "input": ' + b"[" * 60_000 + b"]" * 60_000 + b"}",
        400,
        "bad_json",
        "60,001 levels",
    ),
    ("many digits", b'{"workflow": "same", "input": ' + b"9" * 4000 + b"}", 400, "bad_json", "(4,000 characters)"),
    ("NUL", rb'{"workflow": "same", "input": "a\u0000b"}', 400, "bad_json", "NUL"),
    ("twice", b'{"workflow": "same", "workflow": "buy"}', 400, "bad_json", "the key 'workflow' appears twice"),
    ("unknown workflow", b'{"workflow": "sell"}', 404, "not_found", "'sell'"),
    ("unknown field", b'{"workflow": "same", "ide": "x"}', 422, "invalid", "`ide` of the body is unknown; known are"),
    ("missing field", b'{"input": 1}', 422, "invalid", "the field `workflow` of the body is missing"),
    ("wrong type", b'{"workflow": "same", "priority": "high"}', 422, "invalid", "the field `priority` of the body"),
    ("no object", b"[1, 2]", 422, "invalid", "the body does not fit: expected `object`, got `array`"),
    ("input of wrong type", b'{"workflow": "buy", "input": {"item": 5}}', 422, "invalid", "`$.item`"),
    ("input with unknown field", b'{"workflow": "buy", "input": {"item": "x", "am": 1}}', 422, "invalid", "`$.am`"),
    ("input lacks a field", b'{"workflow": "buy", "input": {}}', 422, "invalid", "`item`"),
    ("bad duration", b'{"workflow": "same", "timeout": "soon"}', 422, "invalid", "timeout"),
]


@pytest.mark.parametrize(("body", "status", "code", "text"), [c[1:] for c in BODIES], ids=[c[0] for c in BODIES])
async def test_a_bad_start_starts_nothing(tmp_path, body, status, code, text):
    async with serving(tmp_path) as served:
        for http in (served.unix, served.tcp):
            refused = await http.post(f"{API}/runs?wait=5s", content=body)
            assert text in problem(refused, status, code)["detail"]
        assert (await served.unix.get(f"{API}/runs")).json()["items"] == []


async def test_the_field_is_also_said_to_programs(tmp_path):
    async with serving(tmp_path) as served:
        for body, field in [
            ({"workflow": "same", "ide": 1}, "ide"),
            ({"input": 1}, "workflow"),
            ({"workflow": "same", "attributes": 5}, "attributes"),
        ]:
            refused = await served.unix.post(f"{API}/runs", json=body)
            assert problem(refused, 422, "invalid")["field"] == field
        refused = await served.unix.post(f"{API}/runs?wait=soon", json={"workflow": "same"})
        assert problem(refused, 422, "invalid")["field"] == "wait"


@pytest.mark.parametrize("path", ["/x", "/nope", f"{API}", f"{API}/nope", f"{API}/runs/x/y/z", f"{API}/runs/a%00b",
                                  f"{API}/runs/%ff", f"{API}//runs", "/%2e%2e/etc", "*"])  # fmt: skip
async def test_an_unknown_address_is_a_problem(tmp_path, path):
    async with serving(tmp_path, Refusing(AssertionError("no route leads here"))) as served:
        problem(await served.unix.get(path), 404, "unknown_address")
        head = await served.unix.head(path)
        assert (head.status_code, head.content) == (404, b"")


async def test_a_wrong_method_is_told_the_right_ones(tmp_path):
    async with serving(tmp_path, Refusing(AssertionError("no method leads here"))) as served:
        for method in ("DELETE", "PUT", "PATCH", "OPTIONS", "TRACE"):
            refused = await served.unix.request(method, f"{API}/runs")
            problem(refused, 405, "method_not_allowed")
            assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


ERRORS = [
    (Invalid("`amount` is no number", field="amount"), 422, "invalid", {"field": "amount"}),
    (NotFound("there is no run x", run="x"), 404, "not_found", {"run": "x"}),
    (Conflict("it is open", code="open", run_id="r1"), 409, "open", {"run_id": "r1"}),
    (Conflict("it has ended", code="ended", status="FAILED"), 409, "ended", {"run_status": "FAILED"}),
    (Gone("it was pruned", run_id="r0"), 410, "gone", {"run_id": "r0"}),
    (Unavailable("the disk is full", retry_after=2.5), 503, "unavailable", {}),
    (EngineError("no"), 400, "error", {}),
    (StoreAway("disk full"), 503, "unavailable", {}),
    (BadCursor("no cursor"), 422, "invalid", {"field": "cursor"}),
    (DamagedRow("r1", 7), 500, "damaged", {"run_id": "r1", "seq": 7}),
    (ExceptionGroup("two", [NotFound("there is no run x")]), 404, "not_found", {}),
    (ImATeapot(), 418, "invalid", {}),
]


@pytest.mark.parametrize(("error", "status", "code", "facts"), ERRORS, ids=[repr(case[0]) for case in ERRORS])
async def test_errors_of_the_engine_become_problems(tmp_path, error, status, code, facts):
    async with serving(tmp_path, Refusing(error)) as served:
        response = await served.unix.get(f"{API}/runs/x")
        document = problem(response, status, code)
        assert facts.items() <= document.items()
        if status == 503:
            assert int(response.headers["retry-after"]) >= 3


@pytest.mark.parametrize("error", [RuntimeError("/etc/secret of 7f3a"), StoreError("/etc/secret"), KeyError("secret")])
async def test_an_unforeseen_error_is_logged_and_not_shown(tmp_path, error):
    stream = io.StringIO()
    logs.configure("info", "json", "n1", stream)
    async with serving(tmp_path, Refusing(error)) as served:
        document = problem(await served.unix.get(f"{API}/runs/x"), 500, "internal")
        assert "secret" not in str(document)
        assert (await served.unix.get("/health/live")).status_code == 200
    assert document["reference"] in document["detail"]
    assert document["reference"] in stream.getvalue()
    assert "secret" in stream.getvalue()


def test_facts_never_replace_what_every_problem_has():
    document = problem_of(Conflict("x", code="open", type="a", title="b", detail="c")).document()
    assert b'"code":"open"' in document
    assert b'"run_type":"a"' in document


async def test_health_says_when_the_store_is_away(tmp_path):
    async with serving(tmp_path) as served:
        served.engine.committer.away = "disk full"
        ready = await served.unix.get("/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"status": "DOWN"})
        health = await served.unix.get("/health")
        assert health.status_code == 503
        assert health.json()["components"]["database"] == {"status": "DOWN", "detail": "disk full"}
        assert (await served.unix.get("/health/live")).status_code == 200
        served.engine.committer.away = None


async def test_health_says_when_the_store_does_not_answer_questions(tmp_path):
    """Nothing is to be written just now, so that nobody has found out yet."""
    async with serving(tmp_path, Refusing(StoreAway("nobody listens"))) as served:
        assert (await served.unix.get("/health/ready")).json() == {"status": "DOWN"}
        health = await served.unix.get("/health")
        assert health.status_code == 503
        assert health.json()["components"]["database"] == {"status": "DOWN", "detail": "nobody listens"}
