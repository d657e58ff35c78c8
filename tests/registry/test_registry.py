from __future__ import annotations

import importlib.metadata
import linecache
import re
import sys
import traceback
from pathlib import Path

import pytest

from jivsd.clock import SECOND
from jivsd.registry import Migration, PluginProblem, Registry
from jivsd.resources import bundled


class At:
    def now(self) -> int:
        return 5 * SECOND


def test_a_file_is_a_plugin(folder, nap):
    path = folder.write("sleepy.py", nap)
    report = folder.load()
    assert report.problems == []
    (plugin,) = report.plugins
    assert (plugin.name, plugin.version, plugin.where, list(plugin.workflows)) == ("sleepy", None, str(path), ["nap"])
    workflow = folder.registry.workflow("nap")
    assert workflow is not None
    assert workflow.code_hash == plugin.code_hash
    assert folder.registry.resolve("nap", plugin.code_hash) is workflow
    assert folder.registry.workflows == [workflow]
    assert folder.registry.workflow("other") is None
    assert folder.registry.resolve("nap", "0" * 32) is None
    assert workflow.signature.decode_input(b'{"seconds": 5}')[0].seconds == 5


def test_name_and_version_constants(folder, nap):
    folder.write("a.py", nap + '\n    NAME = "long-sleep"\n    VERSION = "1.2"\n')
    (plugin,) = folder.load().plugins
    assert (plugin.name, plugin.version, plugin.stored.name) == ("long-sleep", "1.2", "long-sleep")


def test_a_package_with_relative_imports_data_and_subpackages(folder, nap):
    folder.write("orders/__init__.py", "from . import flows\nfrom .deep.inner import nap2\nNAME = 'orders'\n")
    folder.write(
        "orders/flows.py",
        """
        import importlib.resources
        from .deep import inner
        from .bare.module import WORD
        GREETING = importlib.resources.files(__package__).joinpath("texts", "greeting.txt").read_text()
        """,
    )
    folder.write("orders/deep/__init__.py", "")
    folder.write("orders/deep/inner.py", nap + "\n    nap2 = nap.options(id='x')\n")
    folder.write("orders/bare/module.py", "WORD = 'w'\n")
    folder.write("orders/texts/greeting.txt", "hello")
    folder.write("orders/unused.py", "raise RuntimeError")
    report = folder.load()
    assert report.problems == []
    (plugin,) = report.plugins
    assert list(plugin.workflows) == ["nap"]
    flows = sys.modules[f"jivsd_plugins.{plugin.code_hash}.flows"]
    assert (flows.GREETING, flows.WORD) == ("hello", "w")
    assert set(plugin.stored.files) == {
        "__init__.py", "flows.py", "deep/__init__.py", "deep/inner.py", "bare/module.py", "texts/greeting.txt",
        "unused.py",
    }  # fmt: skip


def test_tests_and_hidden_things_are_no_code(folder, nap):
    folder.write("sleepy/__init__.py", nap)
    before = folder.load().plugins[0].code_hash
    for name in (
        "tests/a.py", "sleepy/tests/test_x.py", "sleepy/test_x.py", "sleepy/x_test.py", "sleepy/conftest.py",
        "sleepy/.hidden", "sleepy/__pycache__/x.pyc", "sleepy/x.py~", "test_sleepy.py", "conftest.py", "_shared.py",
        ".x.py", "data/x.json",
    ):  # fmt: skip
        folder.write(name, "raise RuntimeError")
    report = folder.load()
    assert report.problems == []
    assert [plugin.code_hash for plugin in report.plugins] == [before]


def test_the_hash_is_of_the_content_and_not_of_names(folder, nap):
    path = folder.write("sleepy.py", nap)
    first = folder.load().plugins[0].code_hash
    path.rename(path.with_name("drowsy.py"))
    (renamed,) = folder.load().plugins
    assert (renamed.name, renamed.code_hash) == ("drowsy", first)
    path.with_name("drowsy.py").write_bytes(path.with_name("drowsy.py").read_bytes().replace(b"\n", b"\r\n"))
    assert folder.load().plugins[0].code_hash == first
    path.with_name("drowsy.py").unlink()
    folder.write("package/__init__.py", nap)
    package = folder.load().plugins[0].code_hash
    assert package != first
    (folder.path / "package").rename(folder.path / "parcel")
    assert folder.load().plugins[0].code_hash == package
    folder.write("parcel/more.py", "")
    more = folder.load().plugins[0].code_hash
    (folder.path / "parcel/more.py").rename(folder.path / "parcel/other.py")
    assert len({package, more, folder.load().plugins[0].code_hash}) == 3


def test_old_and_new_code_side_by_side(folder, nap):
    folder.write("sleepy.py", nap)
    (old,) = folder.load().plugins
    folder.write("sleepy.py", nap.replace('"slept"', '"slept well"'))
    (new,) = folder.load().plugins
    assert old.code_hash != new.code_hash
    both = [folder.registry.resolve("nap", plugin.code_hash) for plugin in (old, new)]
    assert both == [old.workflows["nap"], new.workflows["nap"]]
    assert folder.registry.workflow("nap") is both[1]
    assert both[0] is not None
    assert both[0].code_hash == old.code_hash
    (folder.path / "sleepy.py").unlink()
    assert folder.load().plugins == []
    assert folder.registry.workflow("nap") is None
    assert folder.registry.resolve("nap", old.code_hash) is both[0]


@pytest.mark.parametrize("name", ["sleepy.py", "sleepy/__init__.py"])
def test_open_runs_get_their_code_back_from_the_store(folder, nap, name):
    folder.write(name, nap + f"\n    UNIQUE = {name!r}\n")
    folder.registry = Registry(At())
    (plugin,) = folder.load().plugins
    assert (plugin.stored.code_hash, plugin.stored.at) == (plugin.code_hash, 5 * SECOND)
    for module in [module for module in sys.modules if module.startswith(f"jivsd_plugins.{plugin.code_hash}")]:
        del sys.modules[module]  # as in another process

    later = Registry()
    loaded = later.load_source(plugin.stored)
    assert later.resolve("nap", plugin.code_hash) is loaded.workflows["nap"]
    assert later.workflow("nap") is None
    assert later.plugins == []


def test_a_damaged_copy_in_the_store_is_refused(folder, nap):
    folder.write("sleepy.py", nap)
    stored = folder.load().plugins[0].stored
    stored.files["sleepy.py"] += "\n"
    with pytest.raises(PluginProblem, match=r"^plugin 'sleepy' \(in the journal\): its files do not match their hash"):
        Registry().load_source(stored)


def test_tracebacks_show_the_source_of_their_version(folder, nap):
    path = folder.write("sleepy.py", nap + "\n    def fail():\n        raise ValueError('old line')\n")
    (plugin,) = folder.load().plugins
    path.write_text("changed since")
    linecache.checkcache()
    with pytest.raises(ValueError, match="old line") as raised:
        sys.modules[f"jivsd_plugins.{plugin.code_hash}"].fail()
    shown = "".join(traceback.format_exception(raised.value))
    assert f'File "sleepy@{plugin.code_hash[:12]}/sleepy.py"' in shown
    assert "    raise ValueError('old line')\n" in shown


def test_nothing_is_written_beside_a_plugin(folder, nap):
    folder.write("sleepy/__init__.py", nap)
    folder.load()
    assert [path.name for path in folder.path.rglob("*")] == ["sleepy", "__init__.py"]


def test_the_bundled_plugins_are_always_there():
    report = Registry().load(installed=False)
    assert report.problems == []
    assert {Path(plugin.where).parent for plugin in report.plugins} <= {bundled("plugins").resolve()}


def test_a_folder_named_twice_or_a_plugin_named_itself(folder, nap):
    path = folder.write("sleepy.py", nap)
    report = folder.registry.load([folder.path, path, folder.path], bundled=False, installed=False)
    assert report.problems == []
    assert [plugin.name for plugin in report.plugins] == ["sleepy"]


def test_plugins_of_installed_distributions(folder, nap, tmp_path, monkeypatch):
    site = tmp_path / "site"
    folder.path = site
    folder.write("acme_jobs/__init__.py", nap.replace('"nap"', '"acme-nap"'))
    folder.write("acme_single.py", nap.replace('"nap"', '"single-nap"'))
    folder.write("acme_loud/__init__.py", "raise SystemExit(3)")
    folder.write("acme_loud/inner.py", "")
    folder.write("acme-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    folder.write(
        "acme-1.0.dist-info/entry_points.txt",
        """
        [jivsd.plugins]
        jobs = acme_jobs
        single = acme_single:ignored
        gone = acme_gone
        loud = acme_loud.inner
        """,
    )
    monkeypatch.syspath_prepend(site)
    assert "acme" in {distribution.name for distribution in importlib.metadata.distributions()}
    report = folder.registry.load(bundled=False)
    assert {plugin.name: list(plugin.workflows) for plugin in report.plugins} == {
        "jobs": ["acme-nap"],
        "single": ["single-nap"],
    }
    assert sorted(map(str, report.problems)) == [
        "plugin 'gone' (entry point gone = acme_gone): there is no such module",
        "plugin 'loud' (entry point loud = acme_loud.inner): SystemExit: 3",
    ]
    assert "acme_jobs" not in sys.modules


def test_a_module_that_is_imported_already(nap):
    module = type(sys)("my_flows")
    sys.modules["my_flows"] = module
    try:
        exec("from jivsd import *\n@workflow('mine')\nasync def mine(ctx: Context) -> None: ...", vars(module))
        registry = Registry()
        plugin = registry.add_module(module)
    finally:
        del sys.modules["my_flows"]
    assert plugin.name == "my_flows"
    assert registry.workflow("mine") is registry.resolve("mine", plugin.code_hash) is module.mine


def test_workflows_of_a_library_that_two_versions_import(folder):
    module = type(sys)("shared_flows")
    sys.modules["shared_flows"] = module
    try:
        exec("from jivsd import *\n@workflow('shared')\nasync def shared(ctx: Context) -> None: ...", vars(module))
        folder.write("a.py", "from shared_flows import shared\n")
        (old,) = folder.load().plugins
        folder.write("a.py", "from shared_flows import shared\nVERSION = '2'\n")
        (new,) = folder.load().plugins
    finally:
        del sys.modules["shared_flows"]
    for plugin in (old, new):
        workflow = folder.registry.resolve("shared", plugin.code_hash)
        assert workflow is not None
        assert workflow.code_hash == plugin.code_hash


def test_migrations_of_own_tables(folder):
    folder.write("shop/__init__.py", "NAME = 'shop'\n")
    folder.write("shop/migrations/sqlite/0002_index.sql", "CREATE INDEX i;")
    folder.write("shop/migrations/sqlite/0001_first.sql", "CREATE TABLE t;")
    folder.write("shop/migrations/postgres/0001_first.sql", "CREATE TABLE p;")
    (plugin,) = folder.load().plugins
    assert plugin.migrations == {
        "sqlite": [Migration(1, "first", "CREATE TABLE t;"), Migration(2, "index", "CREATE INDEX i;")],
        "postgres": [Migration(1, "first", "CREATE TABLE p;")],
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["sqlite/0001_a.sql", "sqlite/0003_b.sql"], r"0003_b.sql\): migrations are .* this one would be 0002"),
        (["sqlite/0001_a.sql", "sqlite/0001_b.sql"], r"0001_b.sql\): migrations are .* this one would be 0002"),
        (["sqlite/first.sql"], "a migration's path is like migrations/sqlite/0001_first.sql"),
        (["oracle/0001_a.sql"], "dialects are sqlite, postgres"),
    ],
)
def test_odd_migrations(folder, files, message):
    folder.write("shop/__init__.py", "NAME = 'shop'\n")
    for file in files:
        folder.write(f"shop/migrations/{file}", "SELECT 1;")
    assert re.search(message, folder.problem())


def test_migrations_need_a_name_that_stays(folder):
    folder.write("shop/__init__.py", "")
    folder.write("shop/migrations/sqlite/0001_a.sql", "SELECT 1;")
    assert "a plugin with migrations sets NAME" in folder.problem()
