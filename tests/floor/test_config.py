from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from jivsd.clock import SECOND
from jivsd.config import Config, ConfigError, default_data_dir, describe, load, socket_path, sqlite_path

SECRET = "hunter2-hunter2"


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "jivsd.toml"
        path.write_text(text)
        return path

    return write


def problems(path=None, overrides=None, **environ):
    with pytest.raises(ConfigError) as raised:
        load(path, overrides or {}, environ)
    assert SECRET not in str(raised.value)
    return raised.value.problems


def test_nothing_configured_gives_the_defaults(tmp_path):
    config = load(None, {}, {"JIVSD_DATA_DIR": str(tmp_path)})
    assert config.data_dir == tmp_path
    assert sqlite_path(config.store.get_secret_value()) == tmp_path / "jivsd.db"
    assert (config.http, config.redis, config.token, config.plugins) == (None, None, None, ())
    assert (config.limits.active_runs, config.limits.payload_bytes, config.limits.depth) == (10_000, 1 << 20, 64)
    assert config.shutdown.grace == 30 * SECOND


def test_each_layer_overrides_the_one_before_and_is_named(write, tmp_path):
    path = write(f'data_dir = "{tmp_path}"\nredis = "redis://a"\n[limits]\nthreads = 1\ndepth = 5\nactive_runs = 3\n')
    (tmp_path / "redis").write_text("redis://b\n")
    environ = {
        "JIVSD_LIMITS__THREADS": "2",
        "JIVSD_LIMITS__DEPTH": "6",
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        "JIVSD_CONFIG": str(path),
    }
    config = load(None, {"limits.depth": 7, "limits.threads": None}, environ)
    assert (config.limits.active_runs, config.limits.threads, config.limits.depth) == (3, 2, 7)
    assert config.redis is not None
    assert config.redis.get_secret_value() == "redis://b"
    assert config.source("limits.active_runs") == f"file {path}"
    assert config.source("limits.threads") == "environment variable JIVSD_LIMITS__THREADS"
    assert config.source("limits.depth") == "command line"
    assert config.source("redis") == f"credential {tmp_path / 'redis'}"
    assert config.source("log.level") == "default"


def test_the_tree_is_frozen(tmp_path):
    config = Config(data_dir=tmp_path)
    for section, name in ((config, "http"), (config.limits, "threads")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, name, None)
    with pytest.raises(TypeError):
        config.connections["crm"] = None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[log]\nlevel = 'loud'", "log.level = 'loud' (file {}): must be 'debug', 'info', 'warning', 'error' or"),
        ("[limits]\nthreads = 0", "limits.threads = 0 (file {}): must be greater than or equal to 1"),
        ("[limits]\nthreads = true", "limits.threads = True (file {}): must be a whole number"),
        (
            "[limits]\npayload_bytes = '1 lot'",
            "limits.payload_bytes = '1 lot' (file {}): must be a number of bytes, or",
        ),
        ("[shutdown]\ngrace = '3 weeks'", "shutdown.grace = '3 weeks' (file {}): must be a duration such as '250ms',"),
        ("[shutdown]\ngrace = inf", "shutdown.grace = inf (file {}): must be a duration such as"),
        ("[shutdown]\ngrace = 1e300", "shutdown.grace = 1e+300 (file {}): must be a duration such as"),
        ("[shutdown]\ngrace = '-3s'", "shutdown.grace = '-3s' (file {}): must be longer than nothing"),
        ("http = '8080'", "http = '8080' (file {}): must be HOST:PORT, e.g. 127.0.0.1:8420"),
        ("http = '127.0.0.1:70000'", "http = '127.0.0.1:70000' (file {}): must be HOST:PORT"),
        ("http = 8080", "http = 8080 (file {}): must be"),
        ("profile = 'test'", "profile = 'test' (file {}): must be 'development' or 'production'"),
        ("node = 'a b'", "node = 'a b' (file {}): must match pattern"),
        ("plugins = [1]", "plugins = [1] (file {}): must be the path of a folder"),
        ("store = 'mysql://u:p@h/d'", "store = 'mysql://u:***@h/d' (file {}): must be a URL, sqlite://… or postgresql"),
        ("store = 'sqlite:///jivsd.db'", "store = 'sqlite:///jivsd.db' (file {}): must be sqlite:////absolute/path"),
        (
            "redis = 'localhost'",
            "redis (file {}): must be a URL, redis://… or rediss://… or unix://… or redis+sentinel",
        ),
        ("redis = 'redis+ring://h'", "redis = 'redis+ring://h' (file {}): must be a URL, redis://…"),
        ("loglevel = 'info'", "loglevel (file {}): there is no such setting; did you mean log.level?"),
        ("[limit]\nthreads = 3", "limit (file {}): there is no such setting; did you mean limits"),
        ("[limits]\nthread = 3", "limits.thread (file {}): there is no such setting; did you mean limits.threads?"),
        ("limits = 3", "limits (file {}): must be a section, [limits], not a value; it has active_runs, running_steps"),
        ("[connections]\ncrm = 'sqlite:////x'", "connections.crm (file {}): must be a section, [connections.crm]"),
        ("[connections.crm]\nsystem = 'x'", "connections.crm.url: must be given"),
        ("[connections.CRM]\nurl = 'sqlite:////x'", "connections: the name 'CRM' must be lower-case letters"),
        ("[connections.crm]\nurl = 'redis://a b'", "connections.crm.url (file {}): must have no white space"),
        ("token = ''", "token (file {}): must be one or more printable ASCII"),
        ("token = 5", "token (file {}): must be a valid string"),
        ("token = {fiel = 'x'}", 'token (file {}): must be a text or {{file = "/path"}}'),
    ],
)
def test_an_error_names_key_value_source_and_what_is_allowed(write, text, expected):
    path = write(text)
    [problem] = problems(path)
    assert problem.startswith(expected.format(path))


def test_all_problems_come_at_once(write):
    path = write("[log]\nlevel = 'loud'\nlvl = 1\n")
    found = problems(path, {"limits.threads": -1, "limits.nonsense": 1}, JIVSD_LIMITS__DEPTH="deep", JIVSD_HTPP="x")
    assert len(found) == 6
    assert "environment variable JIVSD_HTPP: there is no such setting; did you mean JIVSD_HTTP?" in found
    assert "limits.depth = 'deep' (environment variable JIVSD_LIMITS__DEPTH): must be a valid integer" in str(found)
    assert "limits.threads = -1 (command line): must be greater than or equal to 1" in found


def test_a_file_that_cannot_be_read_is_named(write, tmp_path):
    [problem] = problems(write('[log]\nlevel = "info\n'))
    assert problem.startswith(f"the configuration file {tmp_path / 'jivsd.toml'} is not valid TOML: ")
    assert "line 2" in problem
    assert problems(tmp_path / "none.toml") == [
        f"cannot read the configuration file {tmp_path / 'none.toml'}: No such file or directory"
    ]
    assert "Is a directory" in problems(tmp_path)[0]
    (tmp_path / "latin.toml").write_bytes(b'node = "\xff"')
    assert "is not UTF-8: byte 8" in problems(tmp_path / "latin.toml")[0]


@pytest.mark.parametrize(
    ("http", "open_to_others"),
    [
        ("127.0.0.1:8420", False),
        ("127.8.8.8:0", False),
        ("[::1]:8420", False),
        ("localhost:8420", False),
        ("0.0.0.0:8420", True),
        ("[::]:8420", True),
        ("10.0.0.1:8420", True),
        ("localhost.example.org:8420", True),
    ],
)
def test_an_address_that_others_reach_needs_a_token(http, open_to_others):
    assert str(load(None, {"http": http, "token": SECRET}, {}).http) == http
    if open_to_others:
        [problem] = problems(None, {"http": http})
        assert problem == (
            f"http = '{http}' (command line): must be a loopback address, such as 127.0.0.1, unless a token is set"
        )
    else:
        assert str(load(None, {"http": http}, {}).http) == http


def test_none_switches_off(write):
    config = load(write("http = '127.0.0.1:1'\nredis = 'redis://x'"), {"http": "none", "redis": "none"}, {})
    assert (config.http, config.redis) == (None, None)


def test_secrets_come_from_files(write, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    (tmp_path / "connections.erp.url").write_text(f"postgresql://u:{SECRET}@h/erp\n")
    path = write("token = {file = 'secret'}\n[connections.crm]\nurl = {file = 'crm'}\nsystem = 'CRM'")
    (tmp_path / "crm").write_text(f"postgresql://u:{SECRET}@h/crm")
    for config in (
        load(path, {}, {"CREDENTIALS_DIRECTORY": str(tmp_path)}),
        load(None, {}, {"JIVSD_TOKEN_FILE": str(secret), "CREDENTIALS_DIRECTORY": str(tmp_path)}),
    ):
        assert config.token is not None
        assert config.token.get_secret_value() == SECRET
        assert config.connections["erp"].url.get_secret_value() == f"postgresql://u:{SECRET}@h/erp"
    assert load(None, {}, {"JIVSD_CONNECTIONS__CRM__URL_FILE": str(tmp_path / "crm")}).connections["crm"].system is None


def test_a_secret_file_that_is_not_usable_is_named(write, tmp_path):
    (tmp_path / "big").write_bytes(b"x" * 70_000)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    path = write("token = {file = 'absent'}\nstore = {file = 'binary'}\nredis = {file = 'big'}")
    found = problems(path)
    assert f"token (file {path}, file {tmp_path / 'absent'}): the file cannot be read: No such file or" in found[0]
    assert "store" in found[1]
    assert "the file must hold UTF-8 text" in found[1]
    assert "the file has more than 65536 bytes" in found[2]
    assert "both JIVSD_TOKEN and JIVSD_TOKEN_FILE are set" in problems(JIVSD_TOKEN=SECRET, JIVSD_TOKEN_FILE="x")[0]


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:p@h:1/2",
        "rediss://h?ca=/ca.pem",
        "unix:///run/redis.sock",
        "redis+sentinel://:p@one:1,two/main/3",
        "rediss+sentinel://one/main",
        "redis+cluster://one,two:7000",
        "rediss+cluster://[::1]:1",
    ],
)
def test_redis_is_to_be_had_in_many_ways(write, url):
    assert load(write(f"redis = '{url}'"), {}, {}).redis.get_secret_value() == url


def test_secrets_are_never_shown(write):
    path = write(
        f"""
        store = 'postgresql://jivsd:{SECRET}@db/jivsd'
        redis = 'rediss://:{SECRET}@h/0'
        token = '{SECRET}'
        [connections.crm]
        url = 'postgresql://db/crm?user=a&password={SECRET}'
        """
    )
    config = load(path, {}, {})
    shown = {row.key: row.value for row in describe(config)}
    assert shown["store"] == "postgresql://jivsd:***@db/jivsd"
    assert shown["redis"] == "rediss://:***@h/0"
    assert shown["token"] == "***"
    assert shown["connections.crm.url"] == "postgresql://db/crm?user=a&password=***"
    for text in (repr(config), str(config), str(describe(config)), f"{config.store}"):
        assert SECRET not in text


@pytest.mark.parametrize(
    "text",
    [
        f"tokne = '{SECRET}'",
        f"token = ['{SECRET}']",
        f"token = '{SECRET} x'",
        f"token = {{fil = '{SECRET}'}}",
        f"store = 'mysql://u:{SECRET}@h'",
        f"store = '{SECRET}'",
        f"store = ['postgresql://{SECRET}']",
        f"redis = 'redis://:x {SECRET}@h'",
        f"redis = 'http://u:p@{SECRET}/#@h'",
        f"[connections]\ncrm = 'postgresql://u:{SECRET}@h'",
        f"[connections.crm]\nurl = 'h?password={SECRET}'",
        f"[connections.CRM]\nurl = 'postgresql://u:{SECRET}@h'",
    ],
)
def test_errors_do_not_show_secrets(write, text):
    assert problems(write(text))


def test_folders_are_relative_to_the_file_or_to_where_the_command_runs(write, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    path = write("data_dir = 'state'\nplugins = ['mine', '/abs']")
    config = load(path, {}, {})
    assert config.data_dir == tmp_path / "state"
    assert config.plugins == (tmp_path / "mine", Path("/abs"))
    config = load(path, {"plugins": ["other"]}, {"JIVSD_DATA_DIR": "here", "JIVSD_PLUGINS": f"a{os.pathsep}b"})
    assert (config.data_dir, config.plugins) == (Path("/here"), (Path("/other"),))
    assert load(None, {}, {"JIVSD_PLUGINS": f"a{os.pathsep}b"}).plugins == (Path("/a"), Path("/b"))


def test_every_setting_is_described(write):
    rows = describe(load(write("[shutdown]\ngrace = '1m30s'\n[connections.crm]\nurl = 'sqlite:////x'"), {}, {}))
    shown = {row.key: row for row in rows}
    assert all(row.help for row in rows)
    assert shown["shutdown.grace"].value == "1m30s"
    assert shown["supervision.period"].value == "1m"
    assert (shown["http"].value, shown["plugins"].value) == ("none", "none")
    assert rows[-1].key == "connections.crm.system"
    assert shown["limits.threads"].source == "default"


def test_the_data_folder_that_is_found_without_being_told(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_data_dir({}) == tmp_path / "jivsd"
    service = {"INVOCATION_ID": "1", "STATE_DIRECTORY": "/var/lib/jivsd:/var/lib/other"}
    assert default_data_dir(service) == Path("/var/lib/jivsd")
    assert default_data_dir({"STATE_DIRECTORY": "/var/lib/jivsd"}) == tmp_path / "jivsd"
    assert default_data_dir(service | {"JIVSD_DATA_DIR": "/data"}) == Path("/data")


def test_a_socket_path_that_is_too_long_is_refused():
    longest = Path("/" + "x" * 95)
    assert len(os.fsencode(socket_path(longest))) == 107
    with pytest.raises(ConfigError, match="108 bytes, at most 107"):
        socket_path(Path("/" + "x" * 96))
    with pytest.raises(ConfigError, match="153 bytes"):
        socket_path(Path("/" + "é" * 70 + "x"))


def test_a_data_folder_with_odd_characters_keeps_its_store(tmp_path):
    folder = tmp_path / "a b?c#d%20é"
    store = Config(data_dir=folder).store.get_secret_value()
    assert sqlite_path(store) == folder / "jivsd.db"


@pytest.mark.parametrize("url", ["sqlite:///x", "sqlite://", "sqlite:////x?mode=ro", "sqlite:////", "file:///x"])
def test_sqlite_urls_that_name_no_file(url):
    with pytest.raises(ValueError, match="must"):
        sqlite_path(url)


def test_workflows_have_limits_of_their_own(write):
    config = load(write("[workflows.move-tenant]\nactive_runs = 3\n[workflows.'a b']\nrunning_steps = 2"), {}, {})
    assert (config.workflows["move-tenant"].active_runs, config.workflows["move-tenant"].running_steps) == (3, None)
    assert config.workflows["a b"].running_steps == 2
    shown = {row.key: row.value for row in describe(config)}
    assert (shown["workflows.move-tenant.active_runs"], shown["workflows.a b.active_runs"]) == ("3", "none")
    assert load(None, {}, {"JIVSD_WORKFLOWS__NAP__ACTIVE_RUNS": "5"}).workflows["nap"].active_runs == 5
    with pytest.raises(ConfigError) as caught:
        load(write("[workflows]\nx = 3\n[workflows.nap]\nactive_runs = 0\nrunning_steps = 'many'\nactive = 1"), {}, {})
    said = "\n".join(caught.value.problems)
    assert "workflows.nap.active_runs = 0" in said
    assert "must be greater than or equal to 1" in said
    assert "workflows.nap.running_steps = 'many'" in said
    assert "workflows.nap.active (file" in said
    assert "workflows.x (file" in said


def test_several_workers_need_a_store_that_they_can_share():
    environ = {"JIVSD_DATA_DIR": "/d", "JIVSD_WORKERS": "4"}
    with pytest.raises(ConfigError) as caught:
        load(None, {}, environ)
    assert caught.value.problems == [
        "workers = '4' (environment variable JIVSD_WORKERS): must be 1 with an embedded store: several processes need "
        "a store postgresql://…"
    ]
    assert load(None, {"store": "postgresql:///jobs"}, environ).workers == 4
