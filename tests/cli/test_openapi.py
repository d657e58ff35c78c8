"""The API's description: valid, of all routes and their types, and a real daemon keeps to it whatever comes."""

from __future__ import annotations

import inspect
import os
import re
import socket
import tempfile
from functools import cache
from pathlib import Path

import httpx
import pytest
import schemathesis
from conftest import Daemon
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import validate
from schemathesis.checks import CHECKS

from jivsd.admin.app import routes_of
from jivsd.admin.dashboard import assets
from jivsd.admin.events import EventRoutes
from jivsd.admin.openapi import DOCUMENT, document
from jivsd.admin.runs import RunRoutes

EXAMPLES = int(os.environ.get("JIVSD_EXAMPLES", "5"))
"""Requests for each operation; more in a long campaign."""


class Nobody:
    def __getattr__(self, name):
        return None


@cache
def routes():
    """Every route with its handler, as the application has them, but for the files of the dashboard."""
    found = [
        (prefix + path, method, handler)
        for prefix, (method, path, handler) in routes_of(Nobody(), EventRoutes(None, None), {})
    ]
    return [route for route in found if route[0] not in assets() and not route[0].endswith("/<path:rest>")]


@pytest.fixture(scope="module")
def daemon():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(Path(folder), "--http", f"127.0.0.1:{port}")
        daemon.url = f"http://127.0.0.1:{port}"
        yield daemon
        daemon.end()


@pytest.fixture(scope="module")
def described(daemon):
    return httpx.get(f"{daemon.url}/openapi.json").json()


def test_the_description_is_valid(described):
    validate(described)
    assert described["info"]["title"] == "jivsd"


def test_every_route_is_described_with_a_sentence(described):
    for path, method, handler in routes():
        assert hasattr(handler, "operation"), path
        if path != DOCUMENT:
            described_path = described["paths"][re.sub(r"<(\w+)>", r"{\1}", path)]
            assert described_path[method.lower()]["summary"], path


def test_what_a_handler_reads_is_what_is_said_of_it():
    for path, _, handler in routes():
        source, one = inspect.getsource(handler), handler.operation
        if "self._act(" in source:
            source = inspect.getsource(RunRoutes._act)
        reads = {name: re.search(rf"{name}_of\((\w+)(, required=False)?\)", source) for name in ("query", "body")}
        said = {"query": one.query, "body": one.body}
        assert {name: found[1] if found else None for name, found in reads.items()} == {
            name: kind.__name__ if kind else None for name, kind in said.items()
        }, path
        if reads["body"] is not None:
            assert one.required is (reads["body"][2] is None), path


def test_problems_are_described():
    (schema,) = [document([])["components"]["schemas"]["ProblemView"]]
    assert set(schema["required"]) == {"type", "title", "status", "detail", "code"}


def test_a_daemon_keeps_to_its_description(daemon, described):
    schema = schemathesis.openapi.from_dict(described)
    checks = [
        CHECKS.get_one(name)
        for name in (
            "not_a_server_error",
            "status_code_conformance",
            "content_type_conformance",
            "response_headers_conformance",
            "response_schema_conformance",
        )
    ]
    asked = 0
    for result in schema.get_all_operations():
        one = result.ok()

        @given(case=one.as_strategy())
        @settings(
            max_examples=EXAMPLES,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            deadline=None,
            database=None,
            derandomize=True,
        )
        def ask(case):
            nonlocal asked
            asked += 1
            case.call_and_validate(base_url=daemon.url, checks=checks)

        ask()
    assert asked > 100
    assert httpx.get(f"{daemon.url}/health/ready").json() == {"status": "UP"}
