"""Who can change a plugin's code: only root and the user that the daemon runs as may (as sshd asks of its files)."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def distrust(path: Path) -> str | None:
    """Why the code at `path` cannot be trusted, with the command that mends it; None: it can.

    Neither it nor a folder above it may be owned or writable by others. Two things are safe: a group that has nobody
    but the owner (as with a umask of 002), and, above, a sticky folder such as /tmp, where only owners can replace.

    Raises:
        OSError: it cannot be looked at.
    """
    path = path.resolve(strict=True)
    user = os.geteuid()
    for place in (path, *path.parents):
        found = place.stat()
        shown = shlex.quote(str(place))
        if found.st_uid not in (0, user):
            owner = _user(found.st_uid)
            return f"{place} belongs to user {owner}, who could change it; `chown {_user(user)} {shown}` mends it"
        if found.st_mode & stat.S_ISVTX and place != path:
            continue
        if found.st_mode & stat.S_IWOTH:
            return f"everybody can write to {place}; `chmod go-w {shown}` mends it"
        if found.st_mode & stat.S_IWGRP and not _is_alone(found.st_uid, found.st_gid):
            return f"group {_group(found.st_gid)} can write to {place}; `chmod g-w {shown}` mends it"
    return None


def _is_alone(uid: int, gid: int) -> bool:
    """Whether the group has the user of its name as its only member: a user's private group."""
    try:
        owner, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    return (
        group.gr_name == owner.pw_name
        and set(group.gr_mem) <= {owner.pw_name}
        and all(user.pw_gid != gid or user.pw_uid == uid for user in pwd.getpwall())
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
