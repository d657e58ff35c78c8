"""pgbouncer in transaction mode, before a private PostgreSQL server."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import debian

PATIENCE = 20.0


class Pooler:
    """`with` starts and ends it. It has fewer sessions than it is asked for, so that they are shared all the time."""

    def __init__(self, server, *, sessions=3, **settings):
        self._server = server
        self._folder = folder = Path(tempfile.mkdtemp(prefix="pooler-"))
        self._program = debian.found("pgbouncer", "usr/sbin/pgbouncer")
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self._port = listener.getsockname()[1]
        self._settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self._port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": folder / "users",
            "logfile": folder / "log",
            "pool_mode": "transaction",
            "default_pool_size": sessions,
            "server_login_retry": 1,
            **settings,
        }
        self._process = None

    def url(self, database="postgres"):
        """Where a database is, by this way."""
        return f"postgresql://jivsd@127.0.0.1:{self._port}/{database}"

    def __enter__(self):
        lines = [f"{name} = {value}" for name, value in self._settings.items()]
        databases = f"[databases]\n* = host=127.0.0.1 port={self._server.port}\n"
        (self._folder / "ini").write_text("\n".join([databases, "[pgbouncer]", *lines, ""]))
        (self._folder / "users").write_text('"jivsd" ""\n')
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self._folder)

    def start(self):
        """Start it, and wait until it listens."""
        owner = self._server.folder.stat()
        for path in (self._folder, *self._folder.iterdir()):
            path.chmod(0o777)
        self._process = subprocess.Popen(
            [self._program, "-q", self._folder / "ini"],
            env=debian.environment(self._program),
            user=owner.st_uid if owner.st_uid else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + PATIENCE
        while not self._listens():
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.01)

    def stop(self):
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def _listens(self):
        with socket.socket() as caller:
            return caller.connect_ex(("127.0.0.1", self._port)) == 0
