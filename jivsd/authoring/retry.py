"""When a failed step is tried again: a pure policy."""

from __future__ import annotations

import hashlib
import math

import msgspec

from jivsd.authoring.errors import InvalidDefinition
from jivsd.clock import Duration, microseconds


class Retry(msgspec.Struct, frozen=True):
    """How often and when a failed step is tried again.

    `attempts` counts all tries, the first included. The delay before the second is `first`; each further one is
    `factor` times longer, at most `limit`; `jitter` (0 to 1) shortens each by a share drawn from the step's
    idempotency key, so that it is the same in every replay. An error that is an instance of `give_up_on` is final
    at once.

    Raises:
        InvalidDefinition: a number is out of its range or a duration cannot be read.
    """

    attempts: int = 3
    first: Duration = "1s"
    factor: float = 2.0
    limit: Duration = "1m"
    jitter: float = 0.1
    give_up_on: tuple[type[Exception], ...] = ()

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise InvalidDefinition(f"Retry: attempts is {self.attempts}; it counts the first try too, so at least 1")
        if not 1 <= self.factor < math.inf:
            raise InvalidDefinition(f"Retry: factor is {self.factor}; at least 1, and finite")
        if not 0 <= self.jitter <= 1:
            raise InvalidDefinition(f"Retry: jitter is {self.jitter}; from 0 to 1")
        try:
            bad = microseconds(self.first) < 0 or microseconds(self.limit) < 0
        except (ValueError, TypeError) as error:
            raise InvalidDefinition(f"Retry: {error}") from None
        if bad:
            raise InvalidDefinition("Retry: first and limit must not be negative")

    def delay(self, failed: int, error: BaseException, key: str) -> int | None:
        """Microseconds until the next try after `failed` tries; None: there is none.

        `key` is the step's idempotency key.
        """
        if failed >= self.attempts or (self.give_up_on and isinstance(error, self.give_up_on)):
            return None
        first, limit = microseconds(self.first), microseconds(self.limit)
        try:
            delay = min(first * self.factor ** (failed - 1), limit)
        except OverflowError:
            delay = limit if first else 0
        drawn = int.from_bytes(hashlib.blake2b(f"{key}/{failed}".encode(), digest_size=4).digest()) / 2**32
        return round(delay * (1 - self.jitter * drawn))


NO_RETRY = Retry(attempts=1)
"""One try, no second."""
