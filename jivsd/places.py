"""Where a daemon keeps its things, and so where the command line finds it. Imports little: every command needs it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

if TYPE_CHECKING:
    from collections.abc import Mapping

SOCKET_PATH_LIMIT = 107
"""The longest path of a Unix socket in bytes (`sun_path` of unix(7), less its final NUL)."""


class ConfigError(Exception):
    """The configuration cannot be used. `problems` has one sentence for each thing that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def default_data_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Return the data folder of a daemon that was not told one.

    `$JIVSD_DATA_DIR`; else, in a service that systemd started, its `StateDirectory=` (/var/lib/jivsd in the unit that
    jivsd ships); else the user's state folder.
    """
    environ = os.environ if environ is None else environ
    if named := environ.get("JIVSD_DATA_DIR"):
        return Path(named).expanduser().absolute()
    state = environ.get("STATE_DIRECTORY")
    if state and environ.get("INVOCATION_ID"):
        return Path(state.split(":")[0])
    return platformdirs.user_state_path("jivsd")


def socket_path(data_dir: Path) -> Path:
    """Return the path of the daemon's Unix socket in its data folder.

    There is no fallback to another place: a second place would have to be as safe, and as easy to find, as the first.

    Raises:
        ConfigError: the path is longer than a Unix socket's may be.
    """
    path = data_dir / "jivsd.sock"
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_LIMIT:
        raise ConfigError(
            [
                f"data_dir: {str(data_dir)!r} is too long: the Unix socket {path.name} in it would have a path of "
                f"{length} bytes, at most {SOCKET_PATH_LIMIT} work; choose a shorter path, or a symbolic link"
            ]
        )
    return path


def make_folder(data_dir: Path) -> None:
    """Make the data folder if it is not there, for the process's user and group alone.

    Raises:
        OSError: it cannot be made or written to; the message says all.
    """
    try:
        data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"data_dir: cannot make the folder {data_dir}: {error.strerror}") from None
    if not os.access(data_dir, os.W_OK | os.X_OK):
        read_only = os.statvfs(data_dir).f_flag & os.ST_RDONLY
        why = os.strerror(errno.EROFS if read_only else errno.EACCES)
        raise OSError(f"data_dir: cannot write to the folder {data_dir}: {why}")
