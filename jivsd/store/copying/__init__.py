"""Moving house: all that a store holds is copied into another one, of the same kind or not."""

from jivsd.store.copying.copy import Copied, MigrationsOf, copy

__all__ = ["Copied", "MigrationsOf", "copy"]
