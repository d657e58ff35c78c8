"""Transaction steps: each has a transaction and a connection of its own, whose commit records the step, too.

A step's function is a coroutine that may await only its transaction; it is driven in the bridge's loop. When it has
returned, the transaction stays open until the journal's turn comes for the event: then one message writes the event,
checks the fence and commits, so that the fence is held for an instant. Batches never wait for a step.
(DESIGN.md section 3.)
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast

import asyncpg
import trio

from jivsd import logs
from jivsd.authoring.errors import NotDurable
from jivsd.bridge import BridgeClosed
from jivsd.store.api import OutcomeUnknown, StoreError, TransactionError, TransactionLate
from jivsd.store.postgres.connections import FENCED, HELD_UP, LOST, drop, translated
from jivsd.store.postgres.plugin_tables import their_schemas
from jivsd.store.postgres.steptext import prepared

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence

    from jivsd.bridge import Bridge, Pool
    from jivsd.store.postgres.address import Address
    from jivsd.store.postgres.connections import Connection, Sql

STEPS: Final = 8
"""How many transaction steps have a transaction at once; the others wait, and nobody else for them."""
LIMIT: Final = 60.0
"""Seconds that a step without a time limit of its own may take: an open transaction holds locks, and keeps PostgreSQL
from clearing up."""
HOLD: Final = 10.0
"""Seconds that a transaction waits for its commit, then it is rolled back and the step runs again."""
COMMIT: Final = 10.0
"""Seconds that the commit may take; then nobody knows."""
CUT: Final = 5.0
"""Seconds for a statement to be cut short and all to be rolled back, before the connection is dropped."""
BLOCKED: Final = 1.0
"""Seconds that a step's code may compute between two statements: the journal's connections wait meanwhile."""
LOSSES: Final = 10
"""How often a step is run again because its connection was lost, before that counts as a failure of its own."""
FIRST_PAUSE: Final = 0.05
LAST_PAUSE: Final = 2.0
"""Seconds between those, doubled from the first to the last."""

_SEAL: Final = "SET CONSTRAINTS ALL IMMEDIATE; RESET synchronous_commit; RESET ROLE"
"""What the step has put off is checked now; nothing that it has set weakens what follows."""
_CLEAN: Final = "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL; DISCARD TEMP"
_NOTHING: Final = object()

log = logs.get(__name__)


class Gone(StoreError):
    """The transaction was lost before it could commit: nothing of it is there. `begun`: its step had begun."""

    def __init__(self, why: str, *, begun: bool = True) -> None:
        super().__init__(why)
        self.begun = begun


class Fenced(StoreError):
    """The shard has another owner: nothing of the transaction is there."""


class PostgresTransaction:
    """What a transaction step works with. Dead when the step has returned."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self.awaits: object = _NOTHING
        """What the step's coroutine waits for, while that is the business of this transaction."""
        self.lost: Exception | None = None
        """Why the connection, or the server, failed the step."""
        self._connection = connection
        self._schema = schema
        self._open = True

    async def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> int:
        """Run one statement, or several without parameters; return the number of rows that the last one changed.

        Raises:
            TransactionError: it is not allowed.
            asyncpg.PostgresError: PostgreSQL's own errors, such as a violated constraint.
        """
        tag = cast("str", await self._ask(self._connection.execute, sql, parameters))
        word, _, count = tag.rpartition(" ")
        return int(count) if count.isdecimal() and not word.startswith("SELECT") else 0

    async def fetch(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> list[dict[str, Any]]:
        """Run a query; return its rows by column name. Raises as `execute` does."""
        return [dict(row) for row in await self._ask(self._connection.fetch, sql, parameters)]

    async def fetchrow(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> dict[str, Any] | None:
        """Run a query; return its first row, or None. Raises as `execute` does."""
        row = await self._ask(self._connection.fetchrow, sql, parameters)
        return None if row is None else dict(row)

    async def fetchval(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> Any:
        """Run a query; return the first value of its first row, or None. Raises as `execute` does."""
        return await self._ask(self._connection.fetchval, sql, parameters)

    def close(self) -> None:
        """The step has returned: whoever kept the transaction can do nothing with it."""
        self._open = False

    async def _ask(
        self, how: Callable[..., Awaitable[Any]], sql: str, parameters: Sequence[Any] | Mapping[str, Any]
    ) -> Any:
        if not self._open:
            raise TransactionError("this transaction has ended: use it only inside its step")
        text, values = prepared(sql, parameters, self._schema)
        try:
            answer = await _Asked(self, how(text, *values))
        except asyncpg.InFailedSQLTransactionError:
            raise TransactionError(
                "an earlier statement of this transaction step failed, and PostgreSQL takes no more after that: "
                "let the error pass, or put a SAVEPOINT before what may fail"
            ) from None
        except Exception as error:
            if self._connection.is_closed() or isinstance(error, _BY_THE_SERVER):
                self.lost = error
            raise
        if not self._connection.is_in_transaction():
            raise TransactionError("the step's SQL has ended its transaction")
        return answer


_BY_THE_SERVER: Final = (
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresIOError,
    asyncpg.InvalidCachedStatementError,  # a table was changed since the statement was first used
)
"""What is no fault of the step's."""


class _Asked:
    """Waits for the driver, and says meanwhile that the wait is the transaction's."""

    def __init__(self, transaction: PostgresTransaction, work: Awaitable[Any]) -> None:
        self._transaction = transaction
        self._work = work

    def __await__(self) -> Generator[Any, Any, Any]:
        going: Any = self._work.__await__()
        send, value = going.send, None
        while True:
            try:
                waited_for = self._transaction.awaits = send(value)
            except StopIteration as stop:
                return stop.value
            try:
                value, send = (yield waited_for), going.send
            except BaseException as error:
                value, send = error, going.throw
            finally:
                self._transaction.awaits = _NOTHING


class _Driven:
    """Waits for a step's coroutine, as long as that awaits nothing but its transaction."""

    def __init__(self, transaction: PostgresTransaction, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._transaction = transaction
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        send, value = self._coroutine.send, None
        while True:
            done, waited_for = self._go_on(send, value)
            if done:
                return waited_for
            if waited_for is not self._transaction.awaits:
                self._coroutine.close()
                raise NotDurable("a transaction step may await only its transaction")
            try:
                value, send = (yield waited_for), self._coroutine.send
            except BaseException as error:
                value, send = error, cast("Any", self._coroutine.throw)

    def _go_on(self, send: Callable[[Any], Any], value: Any) -> tuple[bool, Any]:
        began = monotonic()
        try:
            done, found = False, send(value)
        except StopIteration as stop:
            done, found = True, stop.value
        except (SystemExit, KeyboardInterrupt) as error:  # it would end the thread that all writes go through
            raise RuntimeError(f"a step does not end the process: {error!r}") from None
        except RuntimeError as error:
            if str(error) == "must be called from async context":  # so trio calls what it is asked for in this thread
                raise NotDurable("a transaction step may await only its transaction") from None
            raise
        if (seconds := monotonic() - began) > BLOCKED:
            self._coroutine.close()
            raise TransactionError(
                f"the transaction step computed for {seconds:.1f} s between two statements, at most {BLOCKED:g} s: "
                "nothing was written; let another step do that"
            )
        return done, found


class _Life:
    """The transaction of one step, from its first statement to its commit: a task in the bridge's loop."""

    def __init__(
        self, transactions: PostgresTransactions, body: Callable[[Any], Coroutine[Any, Any, Any]], limit: float
    ) -> None:
        self.value: Any = None
        self.live = False
        """Whether it waits for its commit."""
        self.told = False
        """Whether it is known what has become of the body."""
        self._all = transactions
        self._body = body
        self._limit = limit
        self._loop: asyncio.AbstractEventLoop
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self._ready: asyncio.Future[None]
        self._commit: asyncio.Future[str]
        self._outcome: asyncio.Future[None]

    # ---- in trio

    async def abandon(self) -> None:
        """See `OpenTx.abandon`."""
        with trio.CancelScope(shield=True), suppress(BridgeClosed, TimeoutError):
            await self._all.bridge.call(self.end, timeout=2 * CUT)

    def drop(self) -> None:
        """See `OpenTx.drop`."""
        with suppress(RuntimeError):  # the loop is closed: so is the connection
            self._loop.call_soon_threadsafe(self.cut)

    # ---- in the bridge's loop

    async def begin(self) -> None:
        """Run the step's body; return when it has returned."""
        self._loop = asyncio.get_running_loop()
        self._ready, self._commit, self._outcome = (self._loop.create_future() for _ in range(3))
        self._task = self._all.bridge.look_after(self._live())
        self._all.lives.add(self)
        self._task.add_done_callback(lambda _: self._all.over(self))
        await self._ready

    async def end(self) -> None:
        """Cut it short; return when all is rolled back."""
        if self._task is None:
            self._all.over(self)
        else:
            self.cut()
            await asyncio.wait({self._task})

    def cut(self) -> None:
        """Have all rolled back."""
        if not self._stopped and self._task is not None:
            self._task.cancel()
        self._stopped = True

    async def commit(self, message: str) -> None:
        """Send what writes the event and commits.

        Raises:
            Gone: the transaction is lost.
            Fenced: the shard has another owner.
            OutcomeUnknown: nobody knows.
            asyncpg.PostgresError: PostgreSQL has rolled it back for this reason.
        """
        if not self.live or self._commit.done():
            raise Gone("the transaction has ended")
        self.live = False
        self._commit.set_result(message)
        await self._outcome

    async def _live(self) -> None:
        try:
            await self._all.pool.lend(self._with)
        except asyncio.CancelledError:
            self._tell(Gone("the step was stopped"))
        except Exception as error:
            if not self.told and isinstance(error, (StoreError, asyncpg.PostgresError, *LOST)):
                error = Gone(str(translated(error, self._all.address)), begun=False)
            self._tell(error)

    def _tell(self, error: BaseException | None = None) -> None:
        """What has become of the body, or else of the commit."""
        waiting = self._outcome if self.told else self._ready
        self.told = True
        if not waiting.done():  # who waited may have left
            if error is None:
                waiting.set_result(None)
            else:
                waiting.set_exception(error)
                waiting.exception()  # perhaps nobody waits any more

    async def _with(self, connection: Connection) -> None:
        path = self._all.path = self._all.path or await their_schemas(connection, self._all.sql)
        await connection.execute(f"BEGIN ISOLATION LEVEL READ COMMITTED; {path}")
        transaction = PostgresTransaction(connection, self._all.address.schema)
        limit = asyncio.timeout(self._limit)
        try:
            async with limit:
                self.value = await _Driven(transaction, self._body(transaction))
                transaction.close()
                await connection.execute(_SEAL)
            if limit.expired() or self._stopped:
                raise asyncio.CancelledError  # the step has swallowed it
        except BaseException as error:
            transaction.close()
            await self._roll_back(connection)
            self._tell(self._why(error, transaction, late=limit.expired()))
        else:
            self.live = True
            self._tell()
            await self._until_commit(connection)
        await self._clean(connection)

    def _why(self, error: BaseException, transaction: PostgresTransaction, *, late: bool) -> BaseException:
        if late:
            return TransactionLate(self._limit)
        if transaction.lost is not None:
            return Gone(str(translated(transaction.lost, self._all.address)))
        if isinstance(error, asyncpg.InFailedSQLTransactionError):
            return TransactionError("a statement of this transaction step failed, and it went on: nothing was written")
        if isinstance(error, asyncio.CancelledError):
            return Gone("the step was stopped")
        return error

    async def _until_commit(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(HOLD):
                message = await self._commit
        except (TimeoutError, asyncio.CancelledError):
            self.live = False
            await self._roll_back(connection)
            return
        if connection.is_closed():
            self._tell(Gone("the connection was lost"))
            return
        try:
            async with asyncio.timeout(COMMIT):
                tag = await connection.execute(message)
            if tag != "COMMIT":
                raise TransactionError("a statement of this transaction step failed, and it went on")
        except (Exception, asyncio.CancelledError) as error:
            await self._roll_back(connection)
            self._tell(self._meaning(error))
        else:
            self._tell()

    def _meaning(self, error: BaseException) -> BaseException:
        """What an error says that came in answer to the commit."""
        if isinstance(error, (*LOST, asyncio.CancelledError)):
            return OutcomeUnknown(f"the database {self._all.address.shown} did not say whether a step has committed")
        if getattr(error, "sqlstate", None) == FENCED:
            return Fenced(str(error))
        if isinstance(error, HELD_UP):
            return Gone(str(error))
        return error

    async def _roll_back(self, connection: Connection) -> None:
        """Return with a connection that is clean, or closed."""
        if connection.is_closed() or not connection.is_in_transaction():
            return
        try:
            async with asyncio.timeout(CUT):
                await connection.execute("ROLLBACK")
        except (Exception, asyncio.CancelledError):
            drop(connection)

    async def _clean(self, connection: Connection) -> None:
        """Leave nothing of the step's in the session."""
        if connection.is_closed() or self._all.address.pooled:
            return
        try:
            async with asyncio.timeout(CUT):
                await connection.execute(_CLEAN)
        except (Exception, asyncio.CancelledError):
            drop(connection)


class PostgresTransactions:
    """The transaction steps of a store. See `store.api.Transactions`."""

    def __init__(self, bridge: Bridge, pool: Pool[Connection], address: Address, sql: Sql) -> None:
        """Prepare. `pool`: `STEPS` connections that nobody else gets."""
        self.bridge = bridge
        self.pool = pool
        self.address = address
        self.sql = sql
        self.path = ""
        """What makes names mean plugins' tables."""
        self.lives: set[_Life] = set()
        self._places = trio.Semaphore(STEPS)
        self._token: trio.lowlevel.TrioToken | None = None
        bridge.at_close(self._cut_all)

    async def open(self, body: Callable[[Any], Coroutine[Any, Any, Any]], limit: float | None) -> _Life:
        """See `Transactions.open`. A step whose connection is lost meanwhile is begun again."""
        pause, losses = FIRST_PAUSE, 0
        while True:
            try:
                return await self._begin(body, LIMIT if limit is None else limit)
            except Gone as error:
                losses += error.begun
                if losses > LOSSES:
                    raise
                if pause == FIRST_PAUSE:
                    log.warning("a transaction step has to begin again", why=str(error))
            await trio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE)

    async def abandon_all(self) -> None:
        """See `Transactions.abandon_all`."""
        with trio.CancelScope(shield=True), suppress(BridgeClosed, TimeoutError):
            await self.bridge.call(self._end_all, timeout=2 * CUT)

    async def _begin(self, body: Callable[[Any], Coroutine[Any, Any, Any]], limit: float) -> _Life:
        self._token = trio.lowlevel.current_trio_token()
        await self._places.acquire()
        life = _Life(self, body, limit)
        try:
            await self.bridge.call(life.begin, timeout=limit + self.address.connect_timeout + 2 * CUT)
        except BaseException:
            if not life.told:
                await life.abandon()
            raise
        return life

    # ---- in the bridge's loop

    def over(self, life: _Life) -> None:
        """A step's transaction has ended: the next one may begin."""
        self.lives.discard(life)
        if self._token is not None:
            with suppress(trio.RunFinishedError):  # nobody is left to begin one
                self._token.run_sync_soon(self._places.release)

    def _cut_all(self) -> None:
        for life in tuple(self.lives):
            life.cut()

    async def _end_all(self) -> None:
        if self.lives:
            await asyncio.wait([asyncio.ensure_future(life.end()) for life in tuple(self.lives)])
