"""The proxy between a client and a server: what it carries, cuts, holds back and loses."""

import asyncio
from contextlib import asynccontextmanager, suppress
from functools import partial

import asyncpg
import pytest
import trio
import trio.testing
from databases import NEWEST

from jivsd.proof.pgwire import Losses, PostgresTap
from jivsd.proof.proxy import Proxy


async def echo(stream):
    with suppress(trio.BrokenResourceError):
        async for data in stream:
            await stream.send_all(data)


@asynccontextmanager
async def through(server, **options):
    async with trio.open_nursery() as nursery:
        proxy = Proxy(server, **options)
        await nursery.start(proxy.serve)
        yield proxy
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def echoing():
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        async with through(("127.0.0.1", listener.socket.getsockname()[1])) as proxy:
            yield proxy
        nursery.cancel_scope.cancel()


async def connected(proxy):
    return await trio.open_tcp_stream("127.0.0.1", proxy.port)


async def received(stream, count):
    """So many bytes; fewer if it ends before."""
    data = b""
    try:
        while len(data) < count and (more := await stream.receive_some(count - len(data))):
            data += more
    except trio.BrokenResourceError:
        pass
    return data


async def test_what_one_side_says_reaches_the_other():
    async with echoing() as proxy, await connected(proxy) as one, await connected(proxy) as other:
        await one.send_all(b"a" * 200_000)
        await other.send_all(b"other")
        assert await received(other, 5) == b"other"
        assert await received(one, 200_000) == b"a" * 200_000
        await trio.testing.wait_all_tasks_blocked()
        assert sorted((link.asked, link.answered) for link in proxy.links) == [(5, 5), (200_000, 200_000)]
    assert proxy.links == []


async def test_a_cut_ends_all_connections_and_new_ones_are_carried_again():
    async with echoing() as proxy, await connected(proxy) as one:
        await one.send_all(b"one")
        assert await received(one, 3) == b"one"
        proxy.cut()
        assert await received(one, 1) == b""
        async with await connected(proxy) as other:
            await other.send_all(b"two")
            assert await received(other, 3) == b"two"


@pytest.mark.parametrize(("count", "heard"), [(4, b""), (13, b"012"), (20, b"0123456789")])
async def test_a_connection_is_cut_after_so_many_bytes_of_both_sides_together(count, heard):
    async with echoing() as proxy, await connected(proxy) as stream:
        await stream.send_all(b"x")
        await received(stream, 1)
        (link,) = proxy.links
        link.cut_after(count)
        await stream.send_all(b"0123456789")
        got = await received(stream, 10)
        assert got == heard[: len(got)], "a reset may throw away what was on its way"
        assert await received(stream, 1) == b""


async def test_what_is_held_back_comes_when_it_is_released():
    async with echoing() as proxy, await connected(proxy) as stream:
        proxy.hold()
        await stream.send_all(b"late")
        with trio.move_on_after(0.05):
            await stream.receive_some()
            pytest.fail("something came through")
        proxy.release()
        assert await received(stream, 4) == b"late"


async def test_one_connection_is_held_back_and_others_are_not():
    async with echoing() as proxy, await connected(proxy) as held:
        await held.send_all(b"a")
        assert await received(held, 1) == b"a"
        (link,) = proxy.links
        link.hold()
        await held.send_all(b"late")
        async with await connected(proxy) as other:
            await other.send_all(b"b")
            assert await received(other, 1) == b"b"
        link.release()
        assert await received(held, 4) == b"late"


@pytest.mark.parametrize("way", ["asked", "answered"])
async def test_one_direction_can_be_held_up_alone(way):
    async with echoing() as proxy, await connected(proxy) as one:
        await one.send_all(b"first")
        assert await received(one, 5) == b"first"
        (link,) = proxy.links
        proxy.hold(asked=way == "asked", answered=way == "answered")
        await one.send_all(b"later")
        with trio.move_on_after(0.1) as patience:
            await received(one, 5)
        assert patience.cancelled_caught
        assert (link.asked, link.answered) == ((5, 5) if way == "asked" else (10, 5))
        proxy.release()
        assert await received(one, 5) == b"later"


async def test_a_client_is_cut_off_when_there_is_no_server_or_it_is_refused():
    async with echoing() as proxy:
        proxy.refusing = True
        async with await connected(proxy) as stream:
            assert await received(stream, 1) == b""
    with trio.socket.socket() as free:
        await free.bind(("127.0.0.1", 0))
        async with through(free.getsockname()) as proxy, await connected(proxy) as stream:
            assert await received(stream, 1) == b""


async def test_it_carries_to_a_unix_socket(tmp_path):
    with trio.socket.socket(trio.socket.AF_UNIX) as listening:
        await listening.bind(str(tmp_path / "echo"))
        listening.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, echo, [trio.SocketListener(listening)])
            async with through(str(tmp_path / "echo")) as proxy, await connected(proxy) as stream:
                await stream.send_all(b"hello")
                assert await received(stream, 5) == b"hello"
            nursery.cancel_scope.cancel()


# ---- PostgreSQL's protocol


def answers(url, *statements):
    """What PostgreSQL answers to each statement, errors too. What can be called, is called in between."""

    async def ask():
        connection = await asyncpg.connect(url, server_settings={"application_name": "the writer"})
        found = []
        for statement in statements:
            try:
                found.append(statement() if callable(statement) else await connection.fetch(statement))
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                found.append(error)
        connection.terminate()
        return found

    return asyncio.run(ask())


def tapped(postgres, *statements):
    """How many answers were lost, and what was answered; then what the table has."""
    databases = postgres(NEWEST)
    databases.sql("DROP TABLE IF EXISTS lost", "CREATE TABLE lost (number integer)")
    losses = Losses()
    tap = PostgresTap(losses)
    steps = {"lose": lambda: losses.begin(first="the w"), "lose other": lambda: losses.begin(first="x")}

    async def ask():
        async with through(("127.0.0.1", databases.server.port), tap=lambda: tap) as proxy:
            url = databases.server.url().replace(str(databases.server.port), str(proxy.port)) + "?sslmode=disable"
            return await trio.to_thread.run_sync(partial(answers, url, *[steps.get(one, one) for one in statements]))

    found = trio.run(ask)
    there = [row["number"] for row in databases.sql("SELECT number FROM lost ORDER BY number")]
    assert tap.name == "the writer"
    return losses.lost, [one for one in found if one is not None], there


def is_cut(answer):
    return isinstance(answer, asyncpg.PostgresConnectionError | asyncpg.InterfaceError | OSError)


def test_the_answer_to_a_statement_that_commits_is_lost(postgres):
    asked = ("INSERT INTO lost VALUES (1)", "lose", "INSERT INTO lost VALUES (2)", "INSERT INTO lost VALUES (3)")
    lost, (first, *others), there = tapped(postgres, *asked)
    assert first == []
    assert all(map(is_cut, others))
    assert lost == 1
    assert there == [1, 2]


def test_of_a_transaction_only_the_answer_to_its_commit_is_lost(postgres):
    asked = ("lose", "BEGIN", "INSERT INTO lost VALUES (1)", "SELECT number FROM lost", "COMMIT")
    lost, (*others, last), there = tapped(postgres, *asked)
    assert others == [[], [], [(1,)]]
    assert is_cut(last)
    assert lost == 1
    assert there == [1]


def test_an_error_commits_nothing_and_is_not_lost(postgres):
    asked = ("lose", "INSERT INTO lost VALUES (1 / 0)", "lose other", "INSERT INTO lost VALUES (3)")
    lost, (first, second), there = tapped(postgres, *asked)
    assert isinstance(first, asyncpg.DivisionByZeroError)
    assert second == []
    assert lost == 0
    assert there == [3]
