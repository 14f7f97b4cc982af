"""How many entries of an inbox are read at once, where some may be too large to be carried in time, and where many
lanes of a process hold theirs until it is their turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

AT_HAND = 12_500  # entries of a process' lanes together, of a kilobyte or so
LEAST = 125  # of one lane nevertheless: two full calls, which one page of looks confirms


class PageSize:
    """`now` is the number to ask for: a quarter of it after a trip that failed, down to one; twice as many after each
    that did not, up to `most`. So a backlog of huge entries is read one by one instead of never."""

    def __init__(self, most: int) -> None:
        self.now = most
        self._most = most

    def among(self, lanes: int) -> int:
        """The number to ask for where so many lanes hold a page of theirs at the same time."""
        return min(self.now, max(LEAST, AT_HAND // max(1, lanes)))

    @contextmanager
    def tried(self) -> Iterator[None]:
        """Around a trip that reads."""
        try:
            yield
        except (RedisError, OSError):
            self.now = max(1, self.now // 4)
            raise
        self.now = min(self._most, self.now * 2)
