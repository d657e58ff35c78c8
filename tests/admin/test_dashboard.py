"""The dashboard's files: whole, safe to have open, had by exact path and without a token."""

from __future__ import annotations

import re

import httpx
import pytest

from admin.serving import Refusing, serving
from jivsd.admin import dashboard
from jivsd.engine.api import NotFound

NOBODY = NotFound("nobody")
SCRIPTS = {path: asset.body.decode() for path, asset in dashboard.assets().items() if path.endswith(".js")}


async def got(tmp_path, path, **headers):
    async with serving(tmp_path, Refusing(NOBODY), token="s3cret") as served:
        return await served.tcp.get(path, headers=headers)


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_has_no_data_needs_no_token_and_lets_nothing_in(tmp_path, path):
    page = await got(tmp_path, path)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-cache"
    assert not re.findall(r"\son\w+=|<style|style=|<script>|https?://", page.text)


async def test_all_that_a_page_names_is_there_and_may_be_kept_for_ever(tmp_path):
    async with serving(tmp_path, Refusing(NOBODY), token="s3cret") as served:
        page = (await served.tcp.get("/")).text + (await served.tcp.get("/docs")).text
        named = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page))
        assert named
        for path in named:
            asset = await served.tcp.get(path)
            assert asset.status_code == 200, path
            assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"
            known = await served.tcp.get(path, headers={"If-None-Match": asset.headers["etag"]})
            assert (known.status_code, known.content) == (304, b"")


def test_scripts_import_what_is_there_and_parse_no_markup():
    names = {path.rpartition("/")[2] for path in SCRIPTS}
    for path, text in SCRIPTS.items():
        assert set(re.findall(r'from "\./([^"]+)"', text)) <= names, path
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|https?://(?!www\.w3\.org)", text
        )
        assert text.count("\n") < 400, path


@pytest.mark.parametrize("path", ["/static/", "/static/app.js", "/docs/", "/docs/x", "/index.html", "/%2F"])
async def test_only_exact_paths_are_open(tmp_path, path):
    assert (await got(tmp_path, path)).status_code == 401


async def test_the_dashboard_asks_with_the_token_like_everybody(tmp_path):
    for path in ("/api/v1/status", "/openapi.json"):
        assert (await got(tmp_path, path)).status_code == 401


async def test_names_of_other_hosts_get_no_page(tmp_path):
    async with serving(tmp_path, Refusing(NOBODY)) as served, httpx.AsyncClient(base_url=served.url) as browser:
        assert (await browser.get("/", headers={"Host": "evil.example"})).status_code == 403
