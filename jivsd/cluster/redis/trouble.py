"""What goes wrong with Redis, in words."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    BusyLoadingError,
    ClusterDownError,
    RedisError,
)
from redis.exceptions import TimeoutError as NoAnswer

from jivsd.cluster.redis.servers import NoCluster, NoService
from jivsd.cluster.redis.wire import is_refusal
from jivsd.masking import masked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jivsd.cluster.redis.address import Address

RIGHTS = (
    "resetchannels ~jivsd:* &jivsd:* +eval +evalsha +get +set +del +publish +subscribe +ping +select +info +role "
    "+client +cluster|slots"
)
"""What a user of Redis may do who serves us."""


def sentence(error: BaseException, address: Address) -> str:
    """What is wrong, where, and what would be right; without a password."""
    return f"Redis at {address.shown}: {masked(_what(error, address))}"


def is_for_good(error: BaseException) -> bool:
    """Whether it stays wrong until somebody changes the configuration."""
    if isinstance(error, AuthenticationError | NoService | NoCluster | WrongServer) or _lacks_rights(error):
        return True
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error))


class WrongServer(RedisError):
    """The server will not do; the message says why."""


def _what(error: BaseException, address: Address) -> str:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not accepted ({cause.verify_message}); ?ca=… names the file of its authority, and "
                "?verify=ca accepts another host name"
            )
        if isinstance(cause, ssl.SSLError):
            return f"TLS fails ({cause.reason or cause}); without TLS it is redis://"
    match error:
        case AuthenticationError() if "without any password configured" in str(error):
            return "it has no password, but the URL has one; leave it out"
        case AuthenticationError() if address.password is None:
            return f"it wants a password ({error}); write redis://user:password@host"
        case AuthenticationError() | AuthenticationWrongNumberOfArgsError():
            return f"the user or the password is wrong ({error})"
        case _ if _lacks_rights(error):
            return f"its user may not do what is needed ({error}); an administrator can say: ACL SETUSER … {RIGHTS}"
        case NoService() | NoCluster() | WrongServer():
            return str(error)
        case BusyLoadingError():
            return "it is loading its data"
        case _ if is_refusal(error, "OOM"):
            return "it has no memory left (maxmemory)"
        case ClusterDownError():
            return f"the cluster is down ({error})"
        case TimeoutError() | NoAnswer():
            return "it does not answer in time" + ("; without TLS it is redis://" if address.tls else "")
        case _:
            return " ".join(str(error).split()) or type(error).__name__


def _lacks_rights(error: BaseException) -> bool:
    return is_refusal(error, "NOPERM") or "user executing the script can't" in str(error)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
