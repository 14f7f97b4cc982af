"""What a key of the in-memory store can hold: sorted sets and streams; the rest are Python's own."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

from redis.exceptions import ResponseError

StreamId = tuple[int, int]
LAST = (1 << 64) - 1


class SortedSet:
    """Members with a score, ordered by score, then by their bytes."""

    __slots__ = ("order", "scores")

    def __init__(self) -> None:
        self.scores: dict[bytes, float] = {}
        self.order: list[tuple[float, bytes]] = []

    def copy(self) -> SortedSet:
        twin = SortedSet()
        twin.scores, twin.order = dict(self.scores), list(self.order)
        return twin

    def put(self, member: bytes, score: float) -> bool:
        """Whether it is new."""
        before = self.scores.get(member)
        if before is not None:
            if before == score:
                return False
            del self.order[bisect_left(self.order, (before, member))]
        self.scores[member] = score
        insort(self.order, (score, member))
        return before is None

    def drop(self, member: bytes) -> bool:
        score = self.scores.pop(member, None)
        if score is None:
            return False
        del self.order[bisect_left(self.order, (score, member))]
        return True

    def between(self, least: bytes, most: bytes) -> tuple[int, int]:
        """Where in the order the members with scores from `least` to `most` stand."""
        low, from_ = _bound(least)
        high, to = _bound(most)
        first = bisect_right(self.order, (low, _ABOVE)) if from_ else bisect_left(self.order, (low, b""))
        last = bisect_left(self.order, (high, b"")) if to else bisect_right(self.order, (high, _ABOVE))
        return first, max(first, last)


_ABOVE = b"\xff" * 80  # no member is longer, and none is all of these bytes


def _bound(word: bytes) -> tuple[float, bool]:
    """A bound and whether it is itself left out."""
    if word[:1] == b"(":
        return number(word[1:]), True
    return number(word), False


def is_within(member: bytes, least: bytes, most: bytes) -> bool:
    """Whether a member lies between two bounds as ZRANGE takes them with BYLEX. Raises ResponseError."""
    for word in (least, most):
        if word not in (b"-", b"+") and word[:1] not in (b"(", b"["):
            raise ResponseError("min or max not valid string range item")
    if least == b"+" or most == b"-":
        return False
    above = least == b"-" or member > least[1:] or (least[:1] == b"[" and member == least[1:])
    return above and (most == b"+" or member < most[1:] or (most[:1] == b"[" and member == most[1:]))


def number(word: bytes) -> float:
    """A score as a client writes it. Raises ResponseError."""
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if value != value:
        raise ResponseError("value is not a valid float")
    return value


def shown(score: float) -> bytes:
    """A score as a server writes it."""
    return b"%d" % score if -1e17 < score < 1e17 and score.is_integer() else b"%.17g" % score


class Stream:
    """Entries in the order of their ids."""

    __slots__ = ("fields", "groups", "ids", "last")

    def __init__(self) -> None:
        self.ids: list[StreamId] = []
        self.fields: list[list[bytes]] = []
        self.last: StreamId = (0, 0)
        self.groups: set[bytes] = set()

    def copy(self) -> Stream:
        twin = Stream()
        twin.ids, twin.fields, twin.last, twin.groups = list(self.ids), list(self.fields), self.last, set(self.groups)
        return twin

    def next_id(self, now_ms: int) -> StreamId:
        ms, seq = self.last
        return (now_ms, 0) if now_ms > ms else (ms, seq + 1)

    def add(self, at: StreamId, fields: list[bytes]) -> None:
        if at <= self.last:
            raise ResponseError("The ID specified in XADD is equal or smaller than the target stream top item")
        self.ids.append(at)
        self.fields.append(fields)
        self.last = at

    def rows(self, first: int, last: int) -> list[list[bytes | list[bytes]]]:
        return [[id_text(self.ids[n]), self.fields[n]] for n in range(first, last)]

    def after(self, at: StreamId) -> int:
        return bisect_right(self.ids, at)

    def span(self, start: bytes, end: bytes) -> tuple[int, int]:
        """Where the entries from `start` to `end` stand, as XRANGE has them."""
        low, high = read_id(start.removeprefix(b"("), 0), read_id(end.removeprefix(b"("), LAST)
        first = bisect_right(self.ids, low) if start[:1] == b"(" else bisect_left(self.ids, low)
        last = bisect_left(self.ids, high) if end[:1] == b"(" else bisect_right(self.ids, high)
        return first, max(first, last)

    def trim_to(self, most: int) -> int:
        gone = max(0, len(self.ids) - most)
        del self.ids[:gone], self.fields[:gone]
        return gone

    def trim_before(self, at: StreamId) -> int:
        gone = bisect_left(self.ids, at)
        del self.ids[:gone], self.fields[:gone]
        return gone


def id_text(at: StreamId) -> bytes:
    return b"%d-%d" % at


def read_id(word: bytes, seq: int) -> StreamId:
    """An entry id; `seq` where it is left out. Raises ResponseError."""
    if word == b"-":
        return (0, 0)
    if word == b"+":
        return (LAST, LAST)
    ms, dash, rest = word.partition(b"-")
    if not ms.isdigit() or (dash and not rest.isdigit()):
        raise ResponseError("Invalid stream ID specified as stream command argument")
    found = (int(ms), int(rest) if dash else seq)
    if max(found) > LAST:
        raise ResponseError("Invalid stream ID specified as stream command argument")
    return found


def flags(words: Sequence[bytes], known: frozenset[bytes]) -> tuple[set[bytes], Sequence[bytes]]:
    """The leading words that are options, upper case, and what comes behind them."""
    for n, word in enumerate(words):
        if word.upper() not in known:
            return {word.upper() for word in words[:n]}, words[n:]
    return {word.upper() for word in words}, []
