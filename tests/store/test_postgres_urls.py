"""URLs with all that people have in them, each against a real server: sockets, TLS, password files, several hosts."""

from __future__ import annotations

import os
from urllib.parse import quote

import debian
import pytest
import trio
import trustme

from jivsd.proof.pgserver import Server
from jivsd.store.api import StoreError, Written
from jivsd.store.postgres import PostgresStore
from store.builders import append
from store.test_postgres import opened, somebody

PASSWORD = "p@ss:w/rd?#%"
RULES = """
local all all trust
hostssl all certain 127.0.0.1/32 cert
hostssl all secret 127.0.0.1/32 scram-sha-256
host all jivsd 127.0.0.1/32 trust
"""
AUTHORITY, STRANGER = trustme.CA(), trustme.CA()


class Site:
    """A server with TLS, and files for its clients in a folder."""

    def __init__(self, server, folder):
        self.server = server
        self.folder = folder
        self.port = server.port
        self.root = self.write("root.crt", AUTHORITY.cert_pem.bytes())
        self.stranger = self.write("stranger.crt", STRANGER.cert_pem.bytes())
        mine = AUTHORITY.issue_cert(common_name="certain")
        self.cert = self.write("mine.crt", mine.cert_chain_pems[0].bytes())
        self.key = self.write("mine.key", mine.private_key_pem.bytes())

    def write(self, name, content, mode=0o600):
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(mode)
        return path

    def url(self, user="jivsd", host="localhost", **options):
        options.setdefault("schema", user.partition(":")[0])
        more = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in options.items())
        return f"postgresql://{user}@{host}:{self.port}/postgres?{more}"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    programs = debian.found("postgresql", "usr/lib/postgresql/*/bin/postgres").parent
    tls = {"ssl": "on", "ssl_ca_file": "root.crt"}
    server = Server(int(programs.parent.name), durable=False, settings=tls, folder=programs)
    data = server.folder / "data"
    its = AUTHORITY.issue_cert("localhost")
    for name, content in {
        "pg_hba.conf": RULES.encode(),
        "root.crt": AUTHORITY.cert_pem.bytes(),
        "server.crt": its.cert_chain_pems[0].bytes(),
        "server.key": its.private_key_pem.bytes(),
    }.items():
        path = data / name
        path.write_bytes(content)
        path.chmod(0o600)
        os.chown(path, data.stat().st_uid, data.stat().st_gid)
    with server:
        trio.run(make_roles, server.url())
        yield Site(server, tmp_path_factory.mktemp("files"))


async def make_roles(url):
    async with somebody(url) as ask:
        await ask("CREATE ROLE certain LOGIN")
        await ask(f"CREATE ROLE secret LOGIN PASSWORD '{PASSWORD}'")
        await ask("GRANT CREATE ON DATABASE postgres TO certain, secret")


async def works(url):
    """What is written there is there; returns whether the session is encrypted."""
    async with opened(url) as j:
        assert await j.one(append(await j.start(), 2)) == Written()
        ask = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        return await j.store._pools.journal.use(lambda db: db.fetchval(ask), timeout=10)


async def refusal(url):
    with pytest.raises(StoreError) as refused:
        await PostgresStore(url).open("node-a")
    said = str(refused.value)
    assert "\n" not in said
    assert PASSWORD not in said
    assert quote(PASSWORD, safe="") not in said
    return said


# ---- TLS


async def test_the_server_shows_who_it_is(site):
    assert await works(site.url(sslmode="verify-full", sslrootcert=site.root))
    assert await works(site.url(host="127.0.0.1", sslmode="verify-ca", sslrootcert=site.root))
    assert await works(site.url()), "TLS is preferred"
    assert not await works(site.url(sslmode="disable"))


async def test_a_certificate_for_another_name(site):
    said = await refusal(site.url(host="127.0.0.1", sslmode="verify-full", sslrootcert=site.root))
    assert "the certificate of 127.0.0.1 is for another name" in said
    assert "name the host as its certificate does" in said


async def test_a_certificate_of_an_authority_that_is_not_ours(site):
    said = await refusal(site.url(sslmode="verify-full", sslrootcert=site.stranger))
    assert "the certificate of localhost is not trusted" in said
    assert "sslrootcert has to name its authority" in said


async def test_the_environment_says_what_the_url_leaves_out(site, monkeypatch):
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGSSLROOTCERT", str(site.root))
    assert await works(site.url())
    monkeypatch.setenv("PGSSLROOTCERT", str(site.stranger))
    assert "is not trusted" in await refusal(site.url())
    monkeypatch.setenv("PGSSLROOTCERT", str(site.folder / "none.crt"))
    assert "none.crt, its sslrootcert: No such file" in await refusal(site.url())


async def test_the_authorities_of_the_machine(site, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(site.root))
    assert await works(site.url(sslrootcert="system"))
    assert "name the host as" in await refusal(site.url(host="127.0.0.1", sslrootcert="system"))
    assert "goes with sslmode=verify-full only" in await refusal(site.url(sslrootcert="system", sslmode="require"))
    monkeypatch.setenv("SSL_CERT_FILE", str(site.stranger))
    assert "is not trusted" in await refusal(site.url(sslrootcert="system", sslmode="verify-full"))


async def test_a_client_shows_a_certificate(site):
    ours = {"sslmode": "verify-full", "sslrootcert": site.root}
    assert await works(site.url("certain", **ours, sslcert=site.cert, sslkey=site.key))
    said = await refusal(site.url("certain", **ours))
    assert "connection requires a valid client certificate" in said
    assert "cannot read" in await refusal(site.url("certain", **ours, sslcert=site.folder / "no.crt", sslkey=site.key))
    site.key.chmod(0o644)
    said = await refusal(site.url("certain", **ours, sslcert=site.cert, sslkey=site.key))
    site.key.chmod(0o600)
    assert f"its sslkey can be read by others; say: chmod 600 {site.key}" in said


async def test_a_server_without_tls(postgres):
    server = postgres(18).server
    assert "it takes no TLS, which sslmode in the URL asks for" in await refusal(f"{server.url()}?sslmode=require")


# ---- passwords


async def test_a_password_with_all_that_a_url_is_made_of(site):
    assert await works(site.url(f"secret:{quote(PASSWORD, safe='')}"))
    said = await refusal(site.url("secret:wrong"))
    assert 'password authentication failed for user "secret"; look at the user and the password' in said
    assert "wrong" not in said


async def test_no_password_at_all(site, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    said = await refusal(site.url("secret"))
    assert "look at the user and the password in the URL" in said


@pytest.mark.parametrize("where", ["url", "variable", "home"])
async def test_a_password_file(site, monkeypatch, tmp_path, where):
    path = tmp_path / ".pgpass"
    escaped = PASSWORD.replace(":", "\\:")
    path.write_text(f"# ours\nlocalhost:{site.port}:*:secret:{escaped}\n")
    path.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path) if where == "home" else "/nonexistent")
    if where == "variable":
        monkeypatch.setenv("PGPASSFILE", str(path))
    url = site.url("secret", **({"passfile": path} if where == "url" else {}))
    assert await works(url)
    path.chmod(0o644)
    said = await refusal(url)
    assert f"the password file {path} is passed over because others may read it; say: chmod 600 {path}" in said


async def test_a_password_in_the_environment(site, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert await works(site.url("secret"))


# ---- other options


async def test_options_of_the_server(site, monkeypatch):
    ask = "SELECT current_setting('work_mem') || ' ' || current_setting('statement_timeout')"
    async with opened(site.url(options="-c work_mem=7MB", statement_timeout="31s")) as j:
        assert await j.store._pools.journal.use(lambda db: db.fetchval(ask), timeout=10) == "7MB 31s"
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=9MB")
    async with opened(site.url()) as j:
        assert await j.store._pools.journal.use(lambda db: db.fetchval(ask), timeout=10) == "9MB 0"


async def test_an_option_that_nobody_knows(site):
    said = await refusal(site.url(work_memory="7MB"))
    assert 'unrecognized configuration parameter "work_memory"; the URL has an option that PostgreSQL does not' in said


async def test_by_the_unix_socket(site, monkeypatch):
    folder = quote(str(site.server.folder), safe="")
    assert not await works(f"postgresql://jivsd@/postgres?host={folder}&port={site.port}")
    assert not await works(f"postgresql://jivsd@{folder}/postgres?port={site.port}")
    monkeypatch.setenv("PGHOST", str(site.server.folder))
    monkeypatch.setenv("PGPORT", str(site.port))
    assert not await works("postgresql://jivsd@/postgres")


async def test_a_host_that_has_no_address():
    assert "the name nowhere.invalid cannot be resolved" in await refusal("postgresql://jivsd@nowhere.invalid/postgres")


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ("channel_binding=require", "say sslmode=verify-full with sslrootcert instead"),
        ("gssencmode=require", "use TLS"),
        ("requirepeer=postgres", "keep the folder of the socket to the server's user"),
        ("hostaddr=10.0.0.1", "say host=… with a name"),
        ("target_session_attrs=standby", "a journal needs the primary"),
        ("sslmode=sometimes", "`sslmode` parameter must be one of"),
        ("bad%20name=1", "'bad name' in the URL of the store is no option of PostgreSQL"),
    ],
)
async def test_options_that_are_refused(options, wrong):
    with pytest.raises(StoreError) as refused:
        await PostgresStore(f"postgresql://jivsd@127.0.0.1:1/postgres?{options}").open("node-a")
    assert wrong in str(refused.value)


@pytest.mark.parametrize("url", ["postgresql://u:a@b@h/d", "postgresql://u:a#b@h/d", "postgresql://u:hunter/x@h/d"])
def test_a_password_that_is_not_written_as_in_a_url(url):
    with pytest.raises(StoreError, match="in a password write %40 for @") as refused:
        PostgresStore(url)
    assert "hunter" not in str(refused.value)


async def test_options_that_ask_for_nothing(site):
    ignored = {"keepalives": 1, "channel_binding": "prefer", "gssencmode": "disable", "load_balance_hosts": "random"}
    assert await works(site.url(**ignored))
