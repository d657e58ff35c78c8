"""A family of small workers, as a program: `family.py FOLDER NAME=DEED…`. The parent says on stdout what it hears.

A worker writes its pid into FOLDER/NAME.pid, says that it is ready, and does its deed: `serve` answers on the shared
socket until SIGTERM, `stubborn` ignores that, `fail` ends before it is ready.
"""

import os
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from jivsd import logs
from jivsd.listening import close, listen_unix
from jivsd.notify import READY, WATCHDOG, Notifier
from jivsd.supervision import Intensity
from jivsd.workers import Family


def main() -> int:
    logs.configure("info", "json", "host")
    folder = Path(sys.argv[1])
    deeds = dict(argument.split("=") for argument in sys.argv[2:])
    listener = listen_unix(folder / "shared.sock")

    def work(name: str, notifier: Notifier) -> int:
        partial = folder / f"{name}.partial"
        partial.write_text(str(os.getpid()))
        partial.replace(folder / f"{name}.pid")
        if deeds[name] == "fail":
            return 3
        try:
            signal.signal(signal.SIGTERM, signal.SIG_IGN if deeds[name] == "stubborn" else lambda *_: sys.exit(0))
            signal.signal(signal.SIGHUP, lambda *_: (folder / f"{name}.hup").touch())
            notifier.send(READY)
            serve(listener, name, notifier)
        except SystemExit:
            (folder / f"{name}.ended").touch()
        return 0

    intensity = Intensity(restarts=2, period=60, first=0.01)
    family = Family(list(deeds), work, intensity=intensity, grace=0.3, notifier=Notifier.of_environment())
    family.hard_end = 0.3 if "stubborn" in deeds.values() else 30
    family.on_ready = lambda: os.write(1, b"ready\n")
    family.on_stop = lambda: close(listener)
    return family.run()


def serve(listener: socket.socket, name: str, notifier: Notifier) -> None:
    listener.setblocking(False)
    ear, mouth = socket.socketpair()
    mouth.setblocking(False)
    signal.set_wakeup_fd(mouth.fileno())  # one that comes just before the wait would not end that
    while True:
        notifier.send(WATCHDOG)
        # All are woken, as trio's loops are, and the first one gets it
        heard, _, _ = select.select([listener, ear], [], [], notifier.watchdog and notifier.watchdog / 4)
        if ear in heard:
            ear.recv(100)
        with suppress(BlockingIOError), listener.accept()[0] as connection:
            connection.sendall(f"{name} {os.getpid()}".encode())


if __name__ == "__main__":
    sys.exit(main())
