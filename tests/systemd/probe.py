"""Tries what nobody in the cell may do; prints a JSON object: of each attempt the error, or null if it worked."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import socket
import sys
import tempfile
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    if getattr(LIBC, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def temporary():
    with tempfile.TemporaryFile(dir="/tmp"):
        pass


def suid():
    file = Path(sys.argv[1], "suid")
    file.touch()
    file.chmod(0o4700)


ATTEMPTS = {
    "write to /usr": lambda: Path("/usr/jivsd-probe").touch(),
    "write to the state": lambda: Path(sys.argv[1], "probe").touch(),
    "write to /tmp": temporary,
    "see process 1": lambda: os.stat("/proc/1"),
    "see /proc/meminfo": lambda: os.stat("/proc/meminfo"),
    "see a disk": lambda: os.stat("/dev/vda") if Path("/dev/vda").exists() else os.stat("/dev/ptmx"),
    "memory to write and execute": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC | mmap.PROT_READ),
    "a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "a TCP socket": lambda: socket.socket().close(),
    "a namespace": lambda: call("unshare", 0x10000000),
    "a set-user-id file": suid,
    "another personality": lambda: call("personality", 0x0008),
    "more priority": lambda: os.setpriority(os.PRIO_PROCESS, 0, 1),
    "the clock": lambda: call("adjtimex", ctypes.create_string_buffer(512)),
    "reboot": lambda: call("reboot", 0),
}


def tried(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))


sys.stdout.write(json.dumps({name: tried(attempt) for name, attempt in ATTEMPTS.items()}))
