"""URLs of Redis with all that people have in them, each against a real server; and what is said when one is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from cluster.redis_servers import encrypted, link, until
from jivsd.cluster.leases import LeasesAway, LeasesError
from jivsd.cluster.redis.address import Tls, address_of
from jivsd.cluster.redis.trouble import RIGHTS
from jivsd.proof.redisserver import Server, Watched

LEASE = 4.0
"""A fourth of it is what a TLS handshake may take on a busy machine."""
PASSWORD = "p@ss:w/rd?#%"
QUOTED = "p%40ss%3Aw%2Frd%3F%23%25"
AUTHORITY, STRANGER = trustme.CA(), trustme.CA()


async def works(url, failures=0):
    """Leases are taken there, and messages come through."""
    heard = []
    async with link(url, heard=heard.append, lease=LEASE) as one:
        await one.check()
        assert await one.leases.hold([1]) == {1}
        await until(lambda: one.bus.listening)
        one.bus.tell("a", b"hello")
        await until(lambda: heard == [b"hello"])
        assert one.commands["failed"] <= failures


async def refusal(url, kind=LeasesError):
    """What is said to who wants to have leases there: one sentence, without a password."""
    async with link(url, lease=LEASE) as one:
        with pytest.raises(kind) as refused:
            await one.check()
    said = str(refused.value)
    assert "\n" not in said
    assert PASSWORD not in said
    assert QUOTED not in said
    return said


# ---- what a URL says


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", {"hosts": (("h", 6379),), "kind": "one", "database": 0}),
        (f"redis://u:{QUOTED}@h:1/2", {"hosts": (("h", 1),), "user": "u", "password": PASSWORD, "database": 2}),
        ("redis://:p@[::1]:5?db=3", {"hosts": (("::1", 5),), "user": None, "password": "p", "database": 3}),
        ("rediss://h", {"tls": Tls()}),
        ("rediss://h?verify=ca", {"tls": Tls(verify="ca")}),
        ("unix:///run/r%20s?db=1", {"path": "/run/r s", "hosts": (), "database": 1}),
        ("unix://u:p@/run/r", {"path": "/run/r", "user": "u", "password": "p"}),
        ("redis+sentinel://a,b:1/main", {"hosts": (("a", 26379), ("b", 1)), "service": "main", "kind": "sentinel"}),
        ("redis+sentinel://a/main/4", {"service": "main", "database": 4}),
        ("redis+sentinel://a/m?sentinel_user=s&sentinel_password=t", {"sentinel_user": "s", "sentinel_password": "t"}),
        ("redis+cluster://a,b:1", {"hosts": (("a", 6379), ("b", 1)), "kind": "cluster"}),
        ("rediss+cluster://u:p@a", {"tls": Tls(), "kind": "cluster", "user": "u"}),
    ],
)
def test_a_url_says(url, expected):
    address = address_of(url)
    assert {name: getattr(address, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h", "it begins with one of redis://, rediss://, unix://"),
        ("redis://a,b", "several hosts go with redis+sentinel:// or redis+cluster://"),
        ("redis://", "a host is missing"),
        ("redis+cluster://a,,b", "a host is missing"),
        ("redis://h:x", "a port is a number up to 65535"),
        ("redis://h:70000", "a port is a number"),
        ("redis://h/x", "a database of Redis is a number"),
        ("redis://h/1?db=2", "the number of the database is there twice"),
        ("redis+cluster://h/1", "a Redis Cluster has no database but 0"),
        ("redis+sentinel://h", "after the hosts of Sentinels comes what they call the primary"),
        ("redis://h?verify=ca", "there is no option verify here; there are db"),
        ("rediss://h?verify=maybe", "verify is full, ca or none"),
        ("rediss://h?ca=/none", "ca=/none cannot be read"),
        ("rediss://h?cert=/etc/hostname", "cert and key go together"),
        ("redis://h#x", "in a password write %40 for @"),
        ("redis://:a@b@h", "in a password write %40 for @"),
        ("unix://run/redis", "write unix:///absolute/path/of/a/socket, with three slashes"),
        ("redis://h?db", "bad query field"),
    ],
)
def test_a_url_that_is_wrong(url, expected):
    with pytest.raises(LeasesError, match=r"^redis = ") as refused:
        address_of(url)
    assert expected in str(refused.value)


# ---- TLS


async def test_the_server_shows_who_it_is(redis, tmp_path):
    authority, stranger = tmp_path / "ca.pem", tmp_path / "stranger.pem"
    AUTHORITY.cert_pem.write_to_path(authority)
    STRANGER.cert_pem.write_to_path(stranger)
    async with encrypted(redis, AUTHORITY) as port:
        await works(f"rediss://localhost:{port}?ca={authority}")
        await works(f"rediss://127.0.0.1:{port}?ca={authority}&verify=ca")
        await works(f"rediss://127.0.0.1:{port}?verify=none")
        said = await refusal(f"rediss://localhost:{port}?ca={stranger}")
        assert "its certificate is not accepted (unable to get local issuer certificate); ?ca=… names the file" in said
        said = await refusal(f"rediss://127.0.0.1:{port}?ca={authority}")
        assert "?verify=ca accepts another host name" in said
    said = await refusal(f"rediss://localhost:{redis.port}", LeasesAway)
    assert "it does not answer in time; without TLS it is redis://" in said


async def test_the_server_wants_to_know_who_we_are(redis, tmp_path):
    mine = AUTHORITY.issue_cert("jivsd")
    cert, key, authority = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    mine.cert_chain_pems[0].write_to_path(cert)
    mine.private_key_pem.write_to_path(key)
    AUTHORITY.cert_pem.write_to_path(authority)
    async with encrypted(redis, AUTHORITY, clients=AUTHORITY) as port:
        await works(f"rediss://localhost:{port}?ca={authority}&cert={cert}&key={key}")
        await refusal(f"rediss://localhost:{port}?ca={authority}", (LeasesError, LeasesAway))


# ---- users


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    socket = tmp_path_factory.mktemp("socket") / "s"
    users = [
        f"jivsd on >{PASSWORD} {RIGHTS}",
        f"reader on >{PASSWORD} resetchannels ~jivsd:* &jivsd:* +get +info +publish",
        f"elsewhere on >{PASSWORD} ~other:* &* +@all",
    ]
    with Server(password="other", users=users, settings={"unixsocket": str(socket)}) as server:
        yield server, socket


async def test_a_user_with_just_the_rights_that_we_name(guarded):
    server, socket = guarded
    await works(f"redis://jivsd:{QUOTED}@127.0.0.1:{server.port}")
    await works(f"redis://jivsd:{QUOTED}@127.0.0.1:{server.port}/3")
    await works(f"unix://jivsd:{QUOTED}@{socket}?db=2")
    await works(server.url)


def test_the_readme_names_the_rights():
    readme = Path(__file__).parents[2] / "README.md"
    assert f"ACL SETUSER jivsd on >secret {RIGHTS}`" in readme.read_text()


async def test_a_user_who_may_not(guarded):
    server, _ = guarded
    place = f"127.0.0.1:{server.port}"
    assert "the user or the password is wrong" in await refusal(f"redis://jivsd:{QUOTED}x@{place}")
    assert "the user or the password is wrong" in await refusal(f"redis://nobody:{QUOTED}@{place}")
    assert "it wants a password" in await refusal(f"redis://{place}")
    for user in ("reader", "elsewhere"):
        said = await refusal(f"redis://{user}:{QUOTED}@{place}")
        assert "its user may not do what is needed" in said
        assert f"ACL SETUSER … {RIGHTS}" in said


async def test_a_password_for_a_server_that_has_none(redis):
    said = await refusal(f"redis://:{QUOTED}@127.0.0.1:{redis.port}")
    assert "it has no password, but the URL has one" in said


async def test_a_user_of_a_cluster(redis_cluster):
    for node in [*redis_cluster.nodes, *redis_cluster.replicas]:
        node.ask("ACL", "SETUSER", "jivsd", "on", f">{PASSWORD}", *RIGHTS.split())
    first = redis_cluster.nodes[0]
    await works(f"redis+cluster://jivsd:{QUOTED}@127.0.0.1:{first.port}")
    assert "the password is wrong" in await refusal(f"redis+cluster://jivsd:x@127.0.0.1:{first.port}")


# ---- the wrong kind of server


async def test_a_cluster_is_no_single_server_and_the_other_way_round(redis, redis_cluster):
    node = redis_cluster.nodes[0]
    assert "it is a node of a cluster; write redis+cluster://" in await refusal(f"redis://127.0.0.1:{node.port}")
    said = await refusal(f"redis+cluster://127.0.0.1:{redis.port}")
    assert "is no node of a cluster" in said


@pytest.mark.slow
async def test_sentinels(tmp_path):
    with Watched(password=PASSWORD.replace("#", "").replace("?", "")) as watched:
        port = watched.sentinel.port
        password = "p%40ss%3Aw%2Frd%25"
        url = f"redis+sentinel://:{password}@127.0.0.1:{port}/jivsd"
        await works(url)
        await works(f"redis+sentinel://:{password}@127.0.0.1:1,127.0.0.1:{port}/jivsd/2", failures=9)
        assert "it is a Sentinel; write redis+sentinel://" in await refusal(f"redis://127.0.0.1:{port}")
        assert "knows no service other" in await refusal(url.replace("/jivsd", "/other"))
        assert "the password is wrong" in await refusal(url.replace(password, "x"))
        watched.sentinel.kill()
        assert "onnect" in await refusal(url, LeasesAway)


async def test_a_replica(redis):
    with Server() as replica:
        replica.ask("REPLICAOF", "127.0.0.1", redis.port)
        replica.wait_until("it follows", lambda: replica.ask("INFO", "replication")["master_link_status"] == "up")
        assert "it is a replica, or has become one" in await refusal(replica.url, LeasesAway)


async def test_nobody_is_there():
    with Server() as server:
        pass
    assert f"Redis at {server.url}: " in await refusal(server.url, LeasesAway)
    said = await refusal("redis://no-such-host.invalid", LeasesAway)
    assert "no-such-host.invalid" in said
    assert "No such file" in await refusal("unix:///no/such/socket", LeasesAway)


async def test_memory_that_throws_locks_away(capsys):
    with Server(settings={"maxmemory": "64mb", "maxmemory-policy": "volatile-lru"}) as server:
        await works(server.url)
        assert "maxmemory-policy volatile-lru" in capsys.readouterr().err
