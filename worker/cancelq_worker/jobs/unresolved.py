"""The `unresolved` intents of a lane, read from its results: those that nothing was learnt of, or done about, since."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis

from cancelq.contract import Lane, Refused, Status, read_entry

PAGE = 1000
# Entries of one millisecond of an inbox that are looked through for one id.
SAME_MS_MOST = 50_000


@dataclass(frozen=True, slots=True)
class Unresolved:
    """One intent and what its final event says, as text."""

    id: str
    event: Mapping[str, str]

    @property
    def scope(self) -> str:
        return self.event.get("scope", "")

    @property
    def queued_ms(self) -> int:
        """The time of its inbox entry, epoch ms; 0 if the event does not tell."""
        text = self.event.get("queued_us", "")
        return int(text) // 1000 if text.isascii() and text.isdigit() else 0


def find(redis: Redis, lane: Lane, *, since_ms: int = 0, ids: Collection[str] = ()) -> list[Unresolved]:
    """Those that ended after `since_ms`, oldest first; with `ids` only these. Left out is what was `resolved` since,
    and what another intent stands for (`origin`). Reads the results to their end, page by page. Raises RedisError."""
    found: dict[str, Unresolved] = {}
    for fields in _events(redis, lane, since_ms):
        id_, status = fields.get("id", ""), fields.get("status")
        if origin := fields.get("origin"):
            found.pop(origin, None)
        if status == Status.resolved:
            found.pop(id_, None)
        elif status == Status.unresolved and fields.get("final") == "1" and (not ids or id_ in ids):
            found[id_] = Unresolved(id_, fields)
    return list(found.values())


def asked(redis: Redis, lane: Lane, one: Unresolved) -> dict[str, str] | None:
    """What the producer asked, from the inbox; None if the entry is not there any more."""
    start, end = f"{one.queued_ms}-0", str(one.queued_ms)
    for _ in range(SAME_MS_MOST // PAGE):
        page = cast("list[tuple[bytes, dict[bytes, bytes]]]", redis.xrange(lane.inbox, start, end, PAGE))
        for entry_id, fields in page:
            read = read_entry(entry_id.decode(), fields)
            if read.id == one.id and not isinstance(read, Refused):
                return dict(read.fields)
        if len(page) < PAGE:
            return None
        start = f"({page[-1][0].decode()}"
    return None


def _events(redis: Redis, lane: Lane, since_ms: int) -> Iterator[dict[str, str]]:
    start = f"{since_ms}-0"
    while True:
        page = cast("Any", redis.xrange(lane.results, start, "+", PAGE))
        for _, fields in page:
            yield {_text(name): _text(value) for name, value in fields.items()}
        if len(page) < PAGE:
            return
        start = f"({page[-1][0].decode()}"


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")
