"""The second watcher of a lane: what it leaves to the first.

Both are told of every entry. Whatever the second did with one that the first has in hand already would be done in
vain: an admission of the same page, a take that finds nothing. So where an entry woke it, it first sees whether the
first gets on without it; and it admits only behind a cursor that nobody else has moved for a head start. Under load a
page takes the first longer than that: then for as long as several of its pages took.
"""

from __future__ import annotations

HEAD_START_US = 50_000
THROUGH_US = 250_000  # after which it takes part in what the first was seen to have begun
PAGES = 3
LONGEST_NS = 2_000_000_000  # by then a first watcher that is gone is off the roster


class HeadStart:
    """How a lane is watched: at once, or behind another."""

    def __init__(self) -> None:
        self.us = 0  # set for the second watcher
        self._cursor: str | None = None
        self._since_ns = 0
        self._page_ns = 0

    @property
    def second(self) -> bool:
        """Whether somebody else has a head start here."""
        return bool(self.us)

    def saw(self, cursor: str, at_ns: int) -> None:
        """Where the admission stands: if not where this watcher knew it, another one has moved it."""
        if cursor != self._cursor:
            self._page_ns = at_ns - self._since_ns if self._cursor is not None else 0
            self._cursor, self._since_ns = cursor, at_ns

    def moved(self, cursor: str) -> None:
        """This watcher moved it."""
        self._cursor = cursor

    def may_admit(self, now_ns: int) -> bool:
        """Whether nobody else admits here, as far as can be seen."""
        if not self.us:
            return True
        enough_ns = max(self.us * 1000, min(PAGES * self._page_ns, LONGEST_NS))
        return self._cursor is not None and now_ns - self._since_ns >= enough_ns
