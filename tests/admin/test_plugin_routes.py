"""Routes that plugins add: over HTTP, in the testing kit, and what is refused when they are declared."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from openapi_spec_validator import validate

from admin import reporting
from admin.serving import serving
from jivsd import Daemon, InvalidDefinition, RouteError, route
from jivsd.admin.access import Role, Token
from jivsd.engine.api import Invalid, NotFound
from jivsd.testing import Env

PLACE = "/api/v1/plugins/reporting"
HELLO = """\
from jivsd import Daemon, route

@route("GET", "/hello")
async def hello(daemon: Daemon) -> str:
    return "{}"
"""


@asynccontextmanager
async def api(folder, **options):
    async with Env(reporting) as env, serving(folder, env.engine, **options) as served:
        yield served.tcp if options else served.unix


async def test_path_query_and_body_come_as_their_types_say(tmp_path):
    async with api(tmp_path) as http:
        found = await http.get(f"{PLACE}/orders/a%2Fb/of/7?times=2.5&tag=x&tag=y")
        assert found.json() == {"item": "a/b", "number": "7", "times": "2.5", "tag": "x,y"}
        assert (await http.get(f"{PLACE}/orders/newest/of/all")).json() == {"items": [{"item": "tea", "amount": 1}]}
        made = (await http.post(f"{PLACE}/orders", json={"item": "tea"}, headers={"X-Jivsd-By": "ann"})).json()
        assert made["workflow_id"] == "order-tea"
        assert made["attributes"]["by"].startswith("ann")
        assert (await http.get(f"{PLACE}/runs")).json() == ["tea"]
        assert (await http.post(f"{PLACE}/orders/wish:order-tea/grant")).json() is False
        shown = await http.get(f"/api/v1/runs/{made['run_id']}/result?wait=5s")
        assert shown.json()["output"] == "tea"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("GET", "/orders/a/of/many", None, 422, "`int`"),
        ("GET", "/orders/a/of/1?times=often", None, 422, "`float`"),
        ("GET", "/orders/a/of/1?times=1&times=2", None, 422, "given 2 times"),
        ("GET", "/orders/a/of/1?color=red", None, 422, "color"),
        ("GET", "/orders/a%00/of/1", None, 404, "nothing at this address"),
        ("POST", "/orders", b'{"item": "tea", "amount": 0}', 422, "amount"),
        ("POST", "/orders", b"[" * 100_000, 400, "the body is not accepted"),
        ("POST", "/orders", b"", 400, "the body is not accepted"),
        ("POST", "/orders/x/grant", b"{}", 422, "takes no body"),
        ("GET", "/runs?status=LOST", None, 422, "LOST"),
        ("GET", "/nothing", None, 404, "has no route GET /nothing"),
        ("PUT", "/orders", b"{}", 404, "has no route PUT /orders"),
        ("DELETE", "/trouble/refuse", None, 409, "not today"),
        ("DELETE", "/trouble/own", None, 404, "there is no run 'nobody'"),
        ("DELETE", "/trouble/late", None, 504, "takes longer than 0.05 s"),
        ("DELETE", "/trouble/secret", None, 500, "an unexpected error"),
        ("DELETE", "/trouble/group", None, 500, "an unexpected error"),
        ("DELETE", "/trouble/group-exit", None, 500, "an unexpected error"),
        ("DELETE", "/trouble/exit", None, 500, "an unexpected error"),
        ("DELETE", "/trouble/odd", None, 500, "an unexpected error"),
    ],
)
async def test_what_goes_wrong_is_a_problem_and_harms_nobody(tmp_path, method, path, body, status, said):
    async with api(tmp_path) as http:
        answered = await http.request(method, PLACE + path, content=body)
        assert answered.status_code == status, answered.text
        assert answered.headers["content-type"] == "application/problem+json"
        assert said in answered.json()["detail"]
        assert "xyzzy" not in answered.text
        assert (await http.get("/health/ready")).status_code == 200


async def test_a_refusal_carries_its_facts(tmp_path):
    async with api(tmp_path) as http:
        problem = (await http.delete(f"{PLACE}/trouble/refuse")).json()
        assert (problem["code"], problem["day"], problem["status"]) == ("closed", "sunday", 409)
        assert (await http.get("/api/v1/plugins/nobody/x")).json()["plugin"] == "nobody"


async def test_roles_are_asked_for(tmp_path):
    tokens = [Token(role.name, f"token-{role.name}", role) for role in Role]
    async with api(tmp_path, tokens=tokens) as http:

        async def ask(role, method, path, **options):
            headers = {"Authorization": f"Bearer token-{role.name}"} if role else {}
            return (await http.request(method, PLACE + path, headers=headers, **options)).status_code

        assert await ask(None, "GET", "/runs") == 401
        assert await ask(Role.READ, "GET", "/runs") == 200
        assert await ask(Role.READ, "POST", "/orders", json={"item": "tea"}) == 403
        assert await ask(Role.OPERATE, "POST", "/orders", json={"item": "tea"}) == 200
        assert await ask(Role.OPERATE, "POST", "/orders/wish:order-tea/grant") == 403
        assert await ask(Role.ADMIN, "POST", "/orders/wish:order-tea/grant") == 200


async def test_they_stand_in_the_description(tmp_path):
    async with api(tmp_path) as http:
        described = (await http.get("/openapi.json")).json()
        validate(described)
        one = described["paths"][f"{PLACE}/orders/{{item}}/of/{{number}}"]["get"]
        assert (one["summary"], one["description"]) == ("Show an order", "With all that was said.")
        assert [(each["name"], each["in"]) for each in one["parameters"]] == [
            ("item", "path"), ("number", "path"), ("times", "query"), ("tag", "query"),
        ]  # fmt: skip
        posted = described["paths"][f"{PLACE}/orders"]["post"]
        assert posted["requestBody"]["required"] is True
        assert "reporting.order.Order" in described["components"]["schemas"]


async def test_a_reload_replaces_them(tmp_path):
    plugin = tmp_path / "greeter.py"
    text = HELLO
    plugin.write_text(text.format("one"))
    async with Env(plugin) as env, serving(tmp_path, env.engine) as served:
        place = "/api/v1/plugins/greeter/hello"
        assert (await served.unix.get(place)).json() == "one"
        plugin.write_text(text.format("two"))
        await env.reload()
        assert (await served.unix.get(place)).json() == "two"
        plugin.unlink()
        await env.reload()
        assert (await served.unix.get(place)).status_code == 404
        assert place not in (await served.unix.get("/openapi.json")).json()["paths"]


async def test_the_testing_kit_asks_them():
    async with Env(reporting) as env:
        assert (await env.request("GET", "/orders/tea/of/7", times=2))["times"] == "2.0"
        started = await env.request("POST", "/orders", {"item": "tea"})
        assert await env.request("POST", f"/orders/{started['run_id']}/grant") is False
        assert await env.result(started["run_id"]) == "tea"
        with pytest.raises(RouteError, match="not today"):
            await env.request("DELETE", "/trouble/refuse")
        with pytest.raises(Invalid, match="body"):
            await env.request("POST", "/orders", {"item": 3})
        with pytest.raises(NotFound, match="no plugin of this test has a route GET /nothing"):
            await env.request("GET", "/nothing")


async def good(daemon: Daemon) -> str:
    return ""


async def takes_body(daemon: Daemon, body: str) -> None: ...


async def takes_name(daemon: Daemon, name: str) -> None: ...


async def takes_all(daemon: Daemon, **rest: str) -> None: ...


async def takes_odd(daemon: Daemon, what: type) -> None: ...


def plain(daemon: Daemon) -> None: ...


@pytest.mark.parametrize(
    ("arguments", "function", "why"),
    [
        (("GET", "hello"), good, "a path begins with /"),
        (("GET", "/he llo"), good, "is no part of a path"),
        (("GET", "/x/.."), good, "is no part of a path"),
        (("GET", "/{name}"), takes_name, "begins with a word of its own"),
        (("POST", "/adopt"), good, "begins with a word of its own"),
        (("GET", "/x/{name}/{name}"), takes_name, "names a part twice"),
        (("GET", "/x/{name}"), good, "it has no parameter 'name'"),
        (("GET", "/x"), takes_body, "a GET has no body"),
        (("HEAD", "/x"), good, "a method is one of GET"),
        (("GET", "/x"), plain, "it is an async function"),
        (("GET", "/x"), takes_all, "it takes the daemon first"),
        (("GET", "/x"), takes_odd, "JSON"),
    ],
)
def test_what_cannot_work_is_refused_where_it_is_declared(arguments, function, why):
    with pytest.raises(InvalidDefinition, match=why):
        route(*arguments)(function)


def test_roles_and_times_have_bounds():
    with pytest.raises(InvalidDefinition, match="its role is operate or admin"):
        route("POST", "/x", role="read")(good)
    with pytest.raises(InvalidDefinition, match="at most 60 s"):
        route("GET", "/x", timeout="2m")(good)
    with pytest.raises(ValueError, match="400 to 499"):
        RouteError(500, "no")


async def test_two_that_answer_the_same_are_a_problem(tmp_path):
    (tmp_path / "twice.py").write_text(
        "from jivsd import Daemon, route\n\n"
        '@route("GET", "/a/{x}")\nasync def one(daemon: Daemon, x: str) -> str:\n    return x\n\n'
        '@route("GET", "/a/{y}")\nasync def two(daemon: Daemon, y: str) -> str:\n    return y\n'
    )
    with pytest.raises(Exception, match="two of its routes answer the same"):
        async with Env(tmp_path / "twice.py"):
            pass
