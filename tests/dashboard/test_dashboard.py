"""People do their tasks on the dashboard, in a real browser; every page is sound at every size and colour."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from dashboard.conftest import TOKEN

pytestmark = pytest.mark.slow

LOOKS = ((1280, "light", True), (400, "dark", True), (1280, "dark", False), (400, "light", False))
"""Width, colours, and whether axe examines the pages: it takes a while, and colours and widths are each seen once."""

RULES = {"rules": {"skip-link": {"enabled": False}}}
"""What follows "#" is a page here, not a place on one."""


def click(page, name, within=None):
    (within or page).get_by_role("button", name=name, exact=True).click()


def status(page, word):
    expect(page.locator(".title .status").first).to_have_text(word)


def test_start_watch_signal_pause_and_resume(daemon, open_page):
    page = open_page(f"{daemon.url}/#/plugins")
    page.get_by_role("link", name="move", exact=True).click()
    expect(page.locator(".description")).to_contain_text("<script>alert(1)</script>")
    page.get_by_label("Input (JSON)").fill('{"tenant": "acme"')
    click(page, "Start")
    expect(page.get_by_role("alert")).to_contain_text("this is not JSON")
    page.get_by_label("Input (JSON)").fill('{"tenant": "acme"}')
    page.get_by_text("Options").click()
    page.get_by_label("Workflow id").fill("acme")
    page.get_by_label("Attributes").fill("region=eu")
    click(page, "Start")

    expect(page.locator("h1")).to_have_text("move:acme")
    bar = page.get_by_role("img", name="tables[customers]/copy: done")
    expect(bar).to_have_count(1)
    expect(page.get_by_role("img", name="tables[customers]/copy: attempt 1 failed")).to_have_count(1)
    bar.hover()
    expect(page.locator(".about")).to_contain_text("Attempt2")
    page.get_by_role("img", name="tables[orders]/copy: done").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".about .path")).to_have_text("tables[customers]/copy")
    expect(page.get_by_text("a condition on the run's own state")).to_be_visible()
    expect(page.get_by_role("meter", name="APPROVAL")).to_be_visible()

    click(page, "Pause")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Why").fill("lunch")
    dialog.get_by_label("Your name").fill("ann")
    click(dialog, "Pause this run")
    expect(page.locator(".title")).to_contain_text("PAUSED")
    click(page, "Resume")
    click(page.get_by_role("dialog"), "Resume this run")
    expect(page.locator(".title")).not_to_contain_text("PAUSED")
    expect(page.get_by_role("row", name="Paused")).to_contain_text("ann")

    click(page, "Signal")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Payload").fill('"bea"')
    click(dialog, "Send")
    status(page, "COMPLETED")
    expect(page.get_by_label("Output")).to_have_text('"approved by bea"')
    expect(page.get_by_role("img", name="letter: child run COMPLETED")).to_have_count(1)


def test_a_form_is_patched_whatever_its_fields_are_called(daemon, open_page):
    page = open_page(f"{daemon.url}/#/plugins")
    patched = page.evaluate(
        """async () => {
          const { h, patch } = await import(document.scripts[0].src.replace("app.js", "dom.js"));
          const form = (kind, name) => h("form", { class: kind }, h("input", { name, value: "x" }));
          const old = form("a", "attributes");
          return patch(old, form("b", "attributes")) === old && old.outerHTML;
        }"""
    )
    assert patched == '<form class="b"><input name="attributes"></form>'


def test_a_failed_run_shows_what_it_undid_and_is_retried(daemon, open_page):
    run = daemon.start("move", {"tenant": "crisp", "good": False}, id="crisp")
    page = open_page(f"{daemon.url}/#/runs/{run}")
    click(page, "Signal")
    page.get_by_role("dialog").get_by_label("Payload").fill('"bea"')
    click(page.get_by_role("dialog"), "Send")
    status(page, "COMPENSATED")
    expect(page.get_by_role("img", name="copy!undo: compensated")).to_have_count(2)
    expect(page.get_by_label("Error")).to_contain_text("ValueError: the totals differ")
    click(page, "Retry")
    click(page.get_by_role("dialog"), "Retry this run")
    expect(page).not_to_have_url(f"{daemon.url}/#/runs/{run}")
    expect(page.locator("h1")).to_have_text("move:crisp")


def test_an_incident_is_resolved_with_a_value_and_a_reason(daemon, open_page):
    run = daemon.start("scales", "crate", id="crate")
    page = open_page(f"{daemon.url}/#/runs/{run}")
    status(page, "BLOCKED")
    page.get_by_role("link", name="Decide it").click()
    click(page, "Acknowledge")
    page.get_by_role("dialog").get_by_label("Your name").fill("ann")
    click(page.get_by_role("dialog"), "Acknowledge")
    expect(page.get_by_text("acknowledge", exact=True)).to_be_visible()
    click(page, "Resolve")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Result (JSON)").fill("12 kg")
    click(dialog, "Resolve")
    expect(dialog.get_by_role("alert")).to_contain_text("this is not JSON")
    dialog.get_by_label("Result (JSON)").fill("12")
    dialog.get_by_label("Why").fill("weighed by hand")
    click(dialog, "Resolve")
    status(page, "RESOLVED")
    expect(page.get_by_text("weighed by hand")).to_be_visible()
    page.goto(f"{daemon.url}/#/runs/{run}")
    status(page, "COMPLETED")


def test_many_runs_at_once_and_the_keys(daemon, open_page):
    for name in ("a", "b"):
        daemon.start("move", {"tenant": name}, id=name, attributes={"lot": "7"})
    page = open_page(f"{daemon.url}/#/")
    expect(page.get_by_role("heading", name="Runs by status")).to_be_visible()
    page.keyboard.press("g")
    page.keyboard.press("r")
    expect(page.locator("h1")).to_have_text("Runs")
    page.goto(f"{daemon.url}/#/runs?attribute=lot%3D7")
    expect(page.locator("input[name=attribute]")).to_have_value("lot=7")  # and not the list of before
    expect(page.locator("tbody tr")).to_have_count(2)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("x")
    expect(page.get_by_text("1 run selected")).to_be_visible()
    page.get_by_label("Select all on this page").check()
    click(page, "Terminate")
    click(page.get_by_role("dialog"), "Terminate 2 runs")
    expect(page.get_by_role("dialog")).to_contain_text("2 runs done")
    click(page.get_by_role("dialog"), "Close")
    expect(page.get_by_role("cell", name="TERMINATED")).to_have_count(2)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("search runs")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("move:b")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("move:b")


def test_all_runs_of_a_filter_at_once(daemon, open_page):
    for name in ("c", "d", "e"):
        daemon.start("move", {"tenant": name}, id=name, attributes={"lot": "8"})
    page = open_page(f"{daemon.url}/#/runs?attribute=lot%3D8")
    page.get_by_text("Act on all that fit").click()
    click(page, "Pause all")
    click(page.get_by_role("dialog"), "Pause 3 runs")
    expect(page.get_by_role("dialog")).to_contain_text("Pause: 3 runs done")
    click(page.get_by_role("dialog"), "Close")
    only = page.get_by_role("button", name="paused", exact=True)
    only.click()
    expect(only).to_have_attribute("aria-pressed", "true")
    expect(page.locator("tbody tr")).to_have_count(3)
    page.get_by_text("Act on all that fit").click()
    click(page, "Terminate all")
    click(page.get_by_role("dialog"), "Terminate 3 runs")
    click(page.get_by_role("dialog"), "Close")
    expect(page.get_by_text("No run fits.")).to_be_visible()


def test_what_is_still_seen_of_another_address_cannot_be_acted_on(daemon, open_page):
    daemon.start("move", {"tenant": "g"}, id="g", attributes={"lot": "9"})
    page = open_page(f"{daemon.url}/#/runs?attribute=lot%3D9")
    expect(page.locator("tbody tr")).to_have_count(1)
    held = []
    page.route("**/api/v1/runs?*paused*", lambda route: held.append(route))
    with page.expect_request("**/api/v1/runs?*paused*"):
        page.get_by_role("button", name="paused", exact=True).click()
    expect(page.locator("main")).to_have_attribute("inert", "")
    expect(page.locator("tbody tr")).to_have_count(1)
    held[0].continue_()
    expect(page.get_by_text("No run fits.")).to_be_visible()
    expect(page.locator("main")).not_to_have_attribute("inert", "")


def test_a_token_is_asked_for_and_a_wrong_one_said(guarded, open_page):
    page = open_page(guarded.url)
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Token").fill("wrong")
    click(dialog, "Go on")
    expect(dialog).to_contain_text("It did not accept the one that was given")
    dialog.get_by_label("Token").fill(TOKEN)
    click(dialog, "Go on")
    expect(page.get_by_role("heading", name="Runs by status")).to_be_visible()
    page.get_by_role("link", name="API", exact=True).click()
    page.get_by_role("search").get_by_role("searchbox").fill("status")
    page.locator("summary", has_text="/api/v1/status").click()
    click(page, "Send")
    expect(page.get_by_label("The answer")).to_contain_text('"node"')
    assert all("401" in complaint for complaint in open_page.complaints)
    open_page.complaints.clear()


def test_news_comes_over_a_websocket(guarded, open_page):
    page = open_page(guarded.url)
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Token").fill(TOKEN)
    with page.expect_websocket() as opened:
        click(dialog, "Go on")
    with opened.value.expect_event("framereceived", lambda frame: "heard" in frame):
        guarded.start("move", {"tenant": "acme"}, id="heard")
    page.goto(f"{guarded.url}/#/runs")
    expect(page.get_by_role("link", name="heard").first).to_be_visible()
    assert not opened.value.is_closed()
    open_page.complaints.clear()


def test_a_daemon_that_is_away_is_seen_to_be(chromium, tmp_path, open_page):
    from dashboard.conftest import Daemon

    daemon = Daemon(tmp_path)
    page = open_page(daemon.url)
    expect(page.get_by_role("button", name="live")).to_be_visible()
    daemon.end()
    expect(page.get_by_role("alert")).to_have_text("daemon away")
    # it may have ended in the middle of a WebSocket's handshake
    assert all("ERR_" in one or "closed before receiving a handshake" in one for one in open_page.complaints)
    open_page.complaints.clear()


@pytest.mark.parametrize(("width", "colours", "examined"), LOOKS)
def test_every_page_is_accessible_and_fits(daemon, open_page, width, colours, examined):
    run = daemon.start("scales", "crate")
    page = open_page(daemon.url, width=width, colours=colours)
    seen = [
        ("#/", "Overview"), ("#/runs", "Runs"), (f"#/runs/{run}", "scales"), ("#/incidents", "Incidents"),
        ("#/migrations", "Migrations"), ("#/locks", "Locks"), ("#/nodes", "Nodes"), ("#/plugins", "Plugins"),
        ("#/plugins/move", "move"), ("docs", "API"),
    ]  # fmt: skip
    for path, heading in seen:
        page.goto(f"{daemon.url}/{path}")
        expect(page.locator("h1")).to_contain_text(heading)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        if examined:
            found = Axe().run(page, options=RULES).response["violations"]
            said = [(one["id"], one["impact"], [node["html"] for node in one["nodes"]][:3]) for one in found]
            assert [one for one in said if one[1] != "minor"] == [], path
