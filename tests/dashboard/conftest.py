"""A real daemon on TCP and a real Chromium to look at it with."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
from debian import CHROMIUM, environment, needed
from playwright.sync_api import sync_playwright

TOKEN = "a-token-of-the-tests"


class Daemon:
    """A daemon process with the plugin `studio`; `url` is where its dashboard is."""

    def __init__(self, folder: Path, *, token: str | None = None) -> None:
        plugins = folder / "plugins"
        plugins.mkdir(mode=0o755)
        (plugins / "studio.py").write_text((Path(__file__).parent / "studio.py").read_text())
        command = [sys.executable, "-m", "jivsd", "run", "--data-dir", folder, "--plugins", plugins]
        command += ["--http", "127.0.0.1:0", "--log-format", "json"]
        if token is not None:
            (folder / "token").write_text(token)
            (folder / "jivsd.toml").write_text(f'token = {{ file = "{folder / "token"}" }}\n')
            (folder / "token").chmod(0o600)
            command += ["--config", folder / "jivsd.toml"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self._lines: list[str] = []
        self._token = token
        self.url = self._address()
        threading.Thread(target=self._drain, daemon=True).start()

    def _address(self) -> str:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.append(line)
            said = json.loads(line)
            if said["event"] == "ready":
                return next(one for one in said["listening"] if one.startswith("http"))
        raise AssertionError(self._lines)

    def _drain(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as log:
            self._lines.extend(log)

    def start(self, workflow, input, **options):
        """Start a run over HTTP, and return its run id."""
        body = json.dumps({"workflow": workflow, "input": input, **options}).encode()
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        request = urllib.request.Request(f"{self.url}/api/v1/runs", body, headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)["run"]["run_id"]

    def end(self) -> None:
        self._process.terminate()
        assert self._process.wait(30) == 0, self._lines


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    daemon = Daemon(tmp_path_factory.mktemp("dashboard"))
    yield daemon
    daemon.end()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A daemon that wants a token."""
    daemon = Daemon(tmp_path_factory.mktemp("guarded"), token=TOKEN)
    yield daemon
    daemon.end()


@pytest.fixture(scope="module")
def chromium():
    program = needed(*CHROMIUM)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            env={name: str(value) for name, value in environment(program).items()},
            args=["--no-sandbox", "--disable-dev-shm-usage"],  # root has no sandbox, a container little /dev/shm
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """Opens a page of a size and with colours; at the end none may have had anything to complain of."""
    contexts = []
    complaints = []

    def opened(url, *, width=1280, colours="light"):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=colours)
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page

    opened.complaints = complaints
    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
