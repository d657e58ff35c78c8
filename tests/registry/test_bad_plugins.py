"""One bad plugin: a clear sentence, and no harm to the others."""

from __future__ import annotations

import os
import re
import sys

import pytest

from jivsd.registry import source as sources

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def broken(:\n", r"bad.py, line 1\): it is not valid Python: invalid syntax"),
        ("\n\nimport nothing_like_this\n", r"bad.py, line 3\): ModuleNotFoundError .*: No module named 'nothing_like"),
        ("def f():\n  return 1 / 0\nf()\n", r"bad.py, line 2\): ZeroDivisionError when it was imported: division by"),
        ("raise ValueError('two\\nlines')", r"ValueError when it was imported: two lines$"),
        ("import sys\nsys.exit()", r"bad.py, line 2\): it ends the process when it is imported \(sys.exit\)"),
        ("raise SystemExit('bye')", "it ends the process when it is imported"),
        ("class Odd(BaseException): ...\nraise Odd('x')", "Odd when it was imported: x"),
        ("print(__file__)", r"name '__file__' is not defined; a plugin is not run from its file"),
        ("import bad", "No module named 'bad'; a plugin imports its own modules by relative imports"),
        ("from . import x", "when it was imported"),
        ("x = (" * 500 + ")" * 500, "not valid Python: too many nested|when it was imported"),
        ("def __getattr__(name): raise OSError(name)", "OSError when its workflows were looked for: NAME"),
        ("NAME = 5", "its NAME is a text, not 5"),
        ("NAME = 'a/b'", "'a/b' cannot be a plugin's name"),
        ("VERSION = (1, 2)", r"its VERSION is a text, not \(1, 2\)"),
        (
            "from jivsd import *\n\n@workflow('w')\ndef w(ctx: Context) -> None: ...",
            r"bad.py, line 3\): workflow 'w' needs an async function",
        ),
        (
            "from jivsd import *\n@workflow('w')\nclass W:\n  x = []\n  async def run(self, ctx: Context) -> None: ...",
            "class attribute 'x' is a mutable list",
        ),
        (
            "from jivsd import *\n@workflow('w')\nasync def a(ctx: Context) -> None: ...\n"
            "@workflow('w')\nasync def b(ctx: Context) -> None: ...",
            "it has two workflows named 'w': line 2 of bad.py and line 4 of bad.py",
        ),
    ],
)
def test_a_bad_plugin_is_a_sentence_and_hurts_nobody(folder, nap, text, message):
    folder.write("good.py", nap)
    path = folder.path / "bad.py"
    path.write_text(text)
    report = folder.load()
    assert [plugin.name for plugin in report.plugins] == ["good"]
    (problem,) = report.problems
    assert re.search(message, str(problem)), str(problem)
    assert str(problem).startswith(f"plugin 'bad' ({path}")
    assert "\n" not in str(problem)
    assert (problem.plugin, problem.where) == ("bad", str(path))


def test_a_problem_in_a_module_of_a_package_names_that_module(folder):
    folder.write("shop/__init__.py", "from . import first, second\n")
    folder.write("shop/first.py", "")
    folder.write("shop/second.py", "\n\nraise KeyError('k')\n")
    problem = folder.problem()
    assert f"({folder.path / 'shop/second.py'}, line 3): KeyError when it was imported: 'k'" in problem
    folder.write("shop/second.py", "x = = 1\n")
    assert f"({folder.path / 'shop/second.py'}, line 1): it is not valid Python" in folder.problem()
    folder.write("shop/second.py", "VALUE = 5\n")
    report = folder.load()
    assert report.problems == []


def test_a_failed_import_leaves_no_modules_behind(folder):
    folder.write("shop/__init__.py", "from . import first, second\n")
    folder.write("shop/first.py", "")
    folder.write("shop/second.py", "raise KeyError\n")
    before = set(sys.modules)
    folder.problem()
    assert set(sys.modules) - before <= {"jivsd_plugins"}


def test_an_interrupt_is_not_a_problem_of_the_plugin(folder):
    folder.write("slow.py", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        folder.load()


def test_of_two_plugins_with_one_name_the_first_stays(folder, nap):
    folder.write("a.py", nap + "\n    NAME = 'sleepy'\n")
    folder.write("b.py", "NAME = 'sleepy'\n")
    report = folder.load()
    assert [plugin.where for plugin in report.plugins] == [str(folder.path / "a.py")]
    assert str(report.problems[0]) == (
        f"plugin 'sleepy' ({folder.path / 'b.py'}): there is a plugin of this name already, {folder.path / 'a.py'}; "
        "that one stays, rename this one"
    )


def test_of_two_plugins_with_one_workflow_the_first_stays(folder, nap):
    folder.write("a.py", nap)
    folder.write("b.py", nap + "\n    @workflow('other')\n    async def other(ctx: Context) -> None: ...\n")
    report = folder.load()
    assert [plugin.name for plugin in report.plugins] == ["a"]
    assert folder.registry.workflow("other") is None
    assert folder.registry.resolve("nap", report.plugins[0].code_hash) is folder.registry.workflow("nap")
    assert str(report.problems[0]) == (
        f"plugin 'b' ({folder.path / 'b.py'}): workflow 'nap' is in plugin 'a' ({folder.path / 'a.py'}) already; "
        "that one stays, rename this one"
    )


def test_what_is_not_text(folder):
    (folder.path / "bad.py").write_bytes(b"NAME = 'caf\xe9'\n")
    assert f"({folder.path / 'bad.py'}): a plugin's files are UTF-8 text, which this is not" in folder.problem()
    (folder.path / "bad.py").write_bytes(b"NAME = 'x'\0\n")
    assert "this has NUL characters" in folder.problem()
    (folder.path / "bad.py").unlink()
    folder.write("shop/__init__.py", "")
    (folder.path / "shop/logo.png").write_bytes(b"\x89PNG\xff")
    assert "shop/logo.png): a plugin's files are UTF-8 text" in folder.problem()


def test_what_cannot_be_read(folder):
    (folder.path / "gone.py").symlink_to("nowhere.py")
    assert "gone.py): cannot be read: No such file or directory" in folder.problem()
    (folder.path / "gone.py").unlink()
    os.mkfifo(folder.path / "pipe.py")
    assert "pipe.py): it is not a regular file" in folder.problem()
    (folder.path / "pipe.py").unlink()
    folder.write("shop/flows.py", "")
    assert "a plugin that is a folder needs an __init__.py" in folder.problem()
    folder.write("shop/__init__.py", "")
    (folder.path / "shop/loop").symlink_to(folder.path / "shop")
    assert "it is a symbolic link to a folder" in folder.problem()
    report = folder.registry.load([folder.path / "missing"], bundled=False, installed=False)
    assert [str(problem) for problem in report.problems] == [
        f"plugins in {folder.path / 'missing'}: cannot be read: No such file or directory"
    ]


def test_what_is_too_large(folder, monkeypatch):
    (folder.path / "bad.py").write_bytes(b"#" * (sources.FILE_LIMIT + 1))
    assert "a file of a plugin has at most 1 MiB" in folder.problem()
    (folder.path / "bad.py").unlink()
    folder.write("shop/__init__.py", "")
    folder.write("/".join(["shop", *"abcdefghijklmnopqr", "x.py"]), "")
    assert f"its folders are nested deeper than {sources.DEPTH_LIMIT}" in folder.problem()
    monkeypatch.setattr(sources, "DEPTH_LIMIT", 100)
    monkeypatch.setattr(sources, "FILES_LIMIT", 1)
    assert "it has more than 1 files" in folder.problem()
    monkeypatch.setattr(sources, "FILES_LIMIT", 10)
    monkeypatch.setattr(sources, "TOTAL_LIMIT", 1 << 20)
    for name in ("a", "b"):
        (folder.path / f"shop/{name}.txt").write_text("x" * (600 * 1024))
    assert "its files have more than 1 MiB together" in folder.problem()


def test_code_that_everybody_can_change_is_refused(folder, nap):
    path = folder.write("sleepy.py", nap)
    path.chmod(0o646)
    assert f"everybody can write to {path}; `chmod go-w {path}` mends it" in folder.problem()
    assert folder.registry.load([path], bundled=False, installed=False, trusted=True).problems == []
    path.chmod(0o644)
    folder.path.chmod(0o1777)
    assert f"plugins in {folder.path}: everybody can write to {folder.path}; `chmod go-w" in folder.problem()
    folder.path.chmod(0o755)
    folder.path.parent.chmod(0o757)
    assert f"everybody can write to {folder.path.parent}" in folder.problem()
    folder.path.parent.chmod(0o1777)  # sticky, as /tmp
    assert folder.load().problems == []
    folder.write("shop/inner/__init__.py", "")
    folder.write("shop/__init__.py", "")
    (folder.path / "shop/inner").chmod(0o707)
    problems = folder.load().problems
    assert [problem.plugin for problem in problems] == ["shop"]


def test_code_behind_a_link_is_judged_where_it_is(folder, nap, tmp_path):
    real = tmp_path / "elsewhere.py"
    real.write_text("NAME = 'there'")
    (folder.path / "here.py").symlink_to(real)
    assert [plugin.name for plugin in folder.load().plugins] == ["there"]
    real.chmod(0o666)
    assert f"everybody can write to {real}" in folder.problem()


@ROOT
def test_code_of_other_users_is_refused(folder, nap):
    path = folder.write("sleepy.py", nap)
    os.chown(path, 12345, 0)
    assert f"{path} belongs to user 12345, who could change it; `chown root {path}` mends it" in folder.problem()
    os.chown(path, 0, 12345)
    path.chmod(0o664)
    assert f"group 12345 can write to {path}; `chmod g-w {path}` mends it" in folder.problem()
    path.chmod(0o644)
    os.chown(folder.path.parent, 12345, 0)
    assert f"{folder.path.parent} belongs to user 12345" in folder.problem()


def test_a_fresh_checkout_passes_under_the_usual_umasks(folder, nap):
    for umask in (0o077, 0o027, 0o022):
        before = os.umask(umask)
        try:
            folder.write(f"m{umask}/__init__.py", "")
            folder.write(f"m{umask}/inner/x.py", "")
        finally:
            os.umask(before)
    report = folder.load()
    assert report.problems == []
    assert [plugin.name for plugin in report.plugins] == ["m18", "m23", "m63"]
