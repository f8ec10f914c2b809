"""What was learnt lately."""

import time
from typing import Generic, TypeVar

__all__ = ["Recent"]

_SECONDS = 300.0

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Remembers what was set in the last five minutes, and some of what is older.

    Args:
        most: how many of the latest are kept, and at most as many others.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # Now and then the younger half becomes the older one, which is forgotten.
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self._young_since = time.monotonic()

    def forget(self) -> None:
        """Forget what is too old, or too much; to be called now and then."""
        now = time.monotonic()
        if len(self._young) >= self._most or now - self._young_since > _SECONDS:
            self._old, self._young, self._young_since = self._young, {}, now

    def get(self, key: K, default: V) -> V:
        """What was set last."""
        found = self._young.get(key)
        return self._old.get(key, default) if found is None else found

    def __contains__(self, key: K) -> bool:
        return key in self._young or key in self._old

    def keep(self, key: K) -> None:
        """Remember what is known as if it had just been set."""
        if key in self._old and key not in self._young:
            self._young[key] = self._old[key]

    def __setitem__(self, key: K, value: V) -> None:
        self._young[key] = value
