"""A cell: what `systemd/jivsd.service` forbids a daemon, imposed without systemd on a program that is then started.

    python cell.py PLAN PROGRAM [ARGUMENT]…

PLAN is a JSON object: `syscalls` (names that may be called), `state` (the folder to write to), `keep` (folders
that stay visible wherever they lie), `mounts` (whether the file systems are taken away: only root can do that, and then
the program is run by the user nobody, without capabilities).
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import socket
import stat
import sys
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_MOUNTS = 0x00020000
NAMESPACES = 0x7E020080
"""All CLONE_NEW… flags that clone(2) knows."""
READ_ONLY, NO_SUID, NO_DEVICES, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
NO_NEW_PRIVILEGES, DROP_BOUND = 38, 24
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
HIDDEN = ("/home", "/root", "/run/user")
NOBODY = 65534

ALLOW, KILL_NOTHING = 0x7FFF0000, 0x00050000
NOT_EQUAL, EQUAL, MASKED = 1, 4, 7
FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)


class Condition(ctypes.Structure):
    """`struct scmp_arg_cmp` of seccomp_rule_add(3)."""

    _fields_ = [("argument", ctypes.c_uint), ("how", ctypes.c_int), ("one", ctypes.c_uint64), ("two", ctypes.c_uint64)]


def refuse(number):
    return KILL_NOTHING | number


class Filter:
    """System calls, and what becomes of them."""

    def __init__(self, default):
        self._lib = ctypes.CDLL("libseccomp.so.2")
        self._lib.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._lib.seccomp_init(ctypes.c_uint32(default)))

    def rule(self, action, name, *conditions):
        number = self._lib.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            return  # of another architecture
        array = (Condition * len(conditions))(*conditions)
        said = self._lib.seccomp_rule_add_array(self._context, ctypes.c_uint32(action), number, len(conditions), array)
        assert said == 0, (name, said)

    def load(self):
        assert self._lib.seccomp_load(self._context) == 0


def filter_calls(names):
    """SystemCallFilter=, SystemCallErrorNumber=EPERM."""
    only = Filter(refuse(errno.EPERM))
    for name in names:
        only.rule(ALLOW, name)
    return only


def filter_arguments():
    """MemoryDenyWriteExecute=, RestrictAddressFamilies=, RestrictNamespaces=, RestrictSUIDSGID=, LockPersonality=."""
    some = Filter(ALLOW)
    no = refuse(errno.EPERM)
    both = mmap.PROT_WRITE | mmap.PROT_EXEC
    some.rule(no, "mmap", Condition(2, MASKED, both, both))
    for name in ("mprotect", "pkey_mprotect"):
        some.rule(no, name, Condition(2, MASKED, mmap.PROT_EXEC, mmap.PROT_EXEC))
    for family in range(46):
        if family not in FAMILIES:
            some.rule(refuse(errno.EAFNOSUPPORT), "socket", Condition(0, EQUAL, family, 0))
    some.rule(refuse(errno.ENOSYS), "clone3")  # its flags lie in memory, which no filter can see
    for flag in (1 << bit for bit in range(32) if NAMESPACES >> bit & 1):
        some.rule(no, "clone", Condition(0, MASKED, flag, flag))
        some.rule(no, "unshare", Condition(0, MASKED, flag, flag))
    some.rule(no, "setns")
    for name, place in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("mkdir", 1), ("mkdirat", 2), ("openat", 3)):
        for bit in (stat.S_ISUID, stat.S_ISGID):
            some.rule(no, name, Condition(place, MASKED, bit, bit))
    some.rule(no, "personality", Condition(0, NOT_EQUAL, 0, 0))
    return some


def mount(source, target, kind, flags, data=""):
    if LIBC.mount(str(source).encode(), str(target).encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {source} at {target}: {os.strerror(number)}")


def take_away(state, keep):
    """PrivateMounts=, PrivateTmp=, ProtectHome=, PrivateDevices=, ProtectProc=, ProcSubset=, ProtectSystem=strict,
    ProtectKernelTunables=, ProtectControlGroups=.
    """
    assert LIBC.unshare(NEW_MOUNTS) == 0, os.strerror(ctypes.get_errno())
    mount("none", "/", "", RECURSIVE | PRIVATE)
    open_ones = {folder: os.open(folder, os.O_PATH) for folder in (*keep, state)}
    for hidden in ("/tmp", "/var/tmp", *filter(os.path.isdir, HIDDEN)):
        mount("tmpfs", hidden, "tmpfs", NO_SUID | NO_DEVICES, "mode=1777" if "tmp" in hidden else "mode=0755")
    devices = {name: os.open(f"/dev/{name}", os.O_PATH) for name in DEVICES}
    mount("tmpfs", "/dev", "tmpfs", NO_SUID, "mode=0755")
    for name, device in devices.items():
        Path("/dev", name).touch()
        mount(f"/proc/self/fd/{device}", f"/dev/{name}", "", BIND)
    for folder, there in open_ones.items():
        Path(folder).mkdir(parents=True, exist_ok=True)
        mount(f"/proc/self/fd/{there}", folder, "", BIND | RECURSIVE)
    writable = {"/tmp", "/var/tmp", state}
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in sorted({*places} - writable):
        if not place.startswith("/proc") and not place.startswith("/dev/"):
            mount("none", place, "", REMOUNT | BIND | READ_ONLY | NO_SUID)
    mount("proc", "/proc", "proc", NO_SUID | NO_DEVICES, "hidepid=invisible,subset=pid")
    for number in (*open_ones.values(), *devices.values()):
        os.close(number)


def become_nobody():
    """User=, Group=, CapabilityBoundingSet=, AmbientCapabilities=."""
    for capability in range(64):
        LIBC.prctl(DROP_BOUND, capability, 0, 0, 0)  # the last ones do not exist
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def main():
    plan, program = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2:]
    filters = filter_calls(plan["syscalls"]), filter_arguments()
    if plan["mounts"]:
        take_away(plan["state"], plan["keep"])
        become_nobody()
    os.umask(0o077)
    os.chdir("/")
    assert LIBC.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
    for one in reversed(filters):  # the one that allows little also forbids to load another
        one.load()
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
