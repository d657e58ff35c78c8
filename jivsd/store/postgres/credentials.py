"""Files that show who we are, and who the server is: certificates, keys, passwords.

The driver reads them as PostgreSQL's own programs do; here is what it says too little about when one will not do.
"""

from __future__ import annotations

import getpass
import os
import re
import ssl
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, unquote, urlsplit

from jivsd import logs
from jivsd.store.api import StoreError

if TYPE_CHECKING:
    from jivsd.store.postgres.address import Address, Host

log = logs.get(__name__)

_FILES: Final = {
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
    "passfile": "PGPASSFILE",
}
"""Options of a URL that name files, and the variables that stand in for them."""
SYSTEM: Final = "system"
"""As sslrootcert: the authorities that this machine trusts."""
_COLON: Final = re.compile(r"(?<!\\):")
_ESCAPED: Final = re.compile(r"\\(.)")
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def look_at_files(address: Address) -> None:
    """See whether the files can be read that a URL, or the environment, names.

    Raises:
        StoreError: one cannot, or a key could be read by others.
    """
    for option, variable in _FILES.items():
        name = address.option(option, variable)
        if name is None or (option, name) == ("sslrootcert", SYSTEM):
            continue
        try:
            with Path(name).open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
        except OSError as error:
            if option == "passfile" and address.option(option, "") is None:
                continue  # a variable that is meant for others, too
            raise StoreError(
                f"the database {address.shown}: cannot read {name}, its {option}: {error.strerror}"
            ) from None
        if option == "sslkey" and mode & stat.S_IRWXO:
            raise StoreError(f"the database {address.shown}: its sslkey can be read by others; say: chmod 600 {name}")


def password_file_ignored(address: Address) -> str | None:
    """What is wrong with the password file, so that the driver passes it over as PostgreSQL's own programs do."""
    if _has_password(address):
        return None
    path = _password_file(address)
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if stat.S_ISREG(mode) and not mode & _OTHERS:
        return None
    return f"the password file {path} is passed over because others may read it; say: chmod 600 {path}"


def password_of(address: Address, host: Host | None) -> str | None:
    """The password for a host from the password file; "" if it is not there, None if the driver knows better.

    The driver would read the file, too, but takes an escaped colon in a password for two characters.
    """
    if _has_password(address) or address.option("service", "PGSERVICE") is not None:
        return None
    if password_file_ignored(address) is not None:
        return ""
    name, port = host or ("localhost", None)
    user = urlsplit(address.dsn).username or address.option("user", "PGUSER") or getpass.getuser()
    named = unquote(urlsplit(address.dsn).path.lstrip("/")) or address.option("dbname", "PGDATABASE")
    wanted = ("localhost" if name.startswith("/") else name, str(port or 5432), named or user, unquote(user))
    for line in _lines(_password_file(address)):
        *fields, password = [_ESCAPED.sub(r"\1", part) for part in _COLON.split(line, 4)]
        if len(fields) == 4 and all(one in ("*", value) for one, value in zip(fields, wanted, strict=True)):
            return password
    return ""


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(errors="replace").splitlines() if line and not line.startswith("#")]
    except OSError:
        return []


def _password_file(address: Address) -> Path:
    named = address.option("passfile", "PGPASSFILE")
    return Path(named) if named else Path("~/.pgpass").expanduser()


def _has_password(address: Address) -> bool:
    parts = urlsplit(address.dsn)
    return bool(parts.password or parse_qs(parts.query).get("password") or os.environ.get("PGPASSWORD"))


def trust_of_the_system(address: Address) -> ssl.SSLContext | None:
    """What `sslrootcert=system` asks for: any authority that this machine trusts; None if it was not asked for.

    Raises:
        StoreError: with a mode that would not look at the server's name, or our own certificate cannot be used.
    """
    if address.option("sslrootcert", _FILES["sslrootcert"]) != SYSTEM:
        return None
    if address.option("sslmode", "PGSSLMODE") not in (None, "verify-full"):
        raise StoreError(f"the database {address.shown}: sslrootcert=system goes with sslmode=verify-full only")
    context = ssl.create_default_context()
    context.set_alpn_protocols(["postgresql"])
    certificate = address.option("sslcert", _FILES["sslcert"])
    if certificate is not None:
        key, password = address.option("sslkey", _FILES["sslkey"]), address.option("sslpassword", "")
        context.load_cert_chain(certificate, key, password or "")
    return context
