"""Code that changes under a running daemon, from the command line."""

from __future__ import annotations

from textwrap import dedent

import pytest

WAITING = """
    from jivsd import Context, workflow

    @workflow("{name}")
    async def waiting(ctx: Context) -> str:
        await ctx.wait_signal("go")
        return "{word}"
"""


@pytest.fixture
def plugin(daemon, jivsd):
    """Writes a plugin into the daemon's folder, and takes it away afterwards."""
    file = daemon.data_dir / "plugins" / "changing.py"

    def write(word: str | None) -> None:
        file.write_text("def" if word is None else dedent(WAITING).format(name="changing", word=word))

    yield write
    file.unlink()
    jivsd("plugins", "reload")


def change(reloaded):
    return {one["name"]: one["change"] for one in reloaded.json["plugins"]}["changing"]


@pytest.mark.slow
def test_plugins_are_loaded_again_by_command_and_by_sighup(plugin, daemon, jivsd):
    plugin("old")
    assert change(jivsd("plugins", "reload", "--json")) == "added"
    run = jivsd("start", "changing").out.strip()
    plugin("new")
    reloaded = jivsd("plugins", "reload")
    assert reloaded.code == 0
    assert [line.split()[:2] for line in reloaded.out.splitlines() if "changing" in line] == [["changing", "changed"]]
    assert "jivsd plugins adopt changing --dry-run" in reloaded.err
    plugin(None)
    refused = jivsd("plugins", "reload")
    assert refused.code == 1
    assert "changing.py, line 1): it is not valid Python" in refused.out
    assert change(jivsd("plugins", "reload", "--json")) == "kept"
    plugin("newest")
    daemon.hang_up()
    for started, word in ((run, "old"), (jivsd("start", "changing").out.strip(), "newest")):
        jivsd("signal", started, "go")
        assert jivsd("wait", started, "--json").json["output"] == word
