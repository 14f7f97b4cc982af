"""A stream as an archive and an audit read it: whole, in pages, with what the server counts of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import ResponseError

from cancelq_worker.archive.canonical import Entry, order_of, read

PAGE = 1000


@dataclass(frozen=True, slots=True)
class Facts:
    """What the server knows of a stream. `added`: entries ever added; `first`: None if it is empty; `deleted`: the
    largest entry that was deleted by its id (XDEL), `0-0` if none was."""

    length: int
    added: int
    first: str | None
    last: str
    deleted: str

    @property
    def torn_out(self) -> str | None:
        """The largest entry that was deleted from between others; None if none is known of."""
        inside = self.first is not None and order_of(self.deleted) > order_of(self.first)
        return self.deleted if inside else None


def raw_reader(client: redis.Redis) -> redis.Redis:
    """The client, with entries as the server gives them, so that a repeated field is seen."""
    client.response_callbacks.pop("XRANGE", None)
    return client


def facts(client: redis.Redis, key: str) -> Facts | None:
    """None if there is no such stream. RedisError."""
    try:
        told: dict[str, Any] = client.xinfo_stream(key)
    except ResponseError as error:
        if "no such key" in str(error):
            return None
        raise
    first = told["recorded-first-entry-id"].decode() if told["length"] else None
    last, deleted = told["last-generated-id"].decode(), told["max-deleted-entry-id"].decode()
    return Facts(told["length"], told["entries-added"], first, last, deleted)


def entries(client: redis.Redis, key: str, start: str, end: str) -> Iterator[Entry]:
    """Those from `start` (`(` before it leaves it out) to `end`, one page in memory. `client` is a `raw_reader`."""
    for entry_id, flat in raw_entries(client, key, start, end):
        yield read(entry_id, flat)


def raw_entries(client: redis.Redis, key: str, start: str, end: str) -> Iterator[tuple[bytes, list[bytes]]]:
    """The same, unread."""
    while True:
        page: list[tuple[bytes, list[bytes]]] = client.execute_command("XRANGE", key, start, end, "COUNT", PAGE)  # type: ignore[no-untyped-call]
        yield from page
        if len(page) < PAGE:
            return
        start = f"({page[-1][0].decode()}"


def after(entry_id: str) -> str:
    """Where a reading begins that leaves out what is not after this entry; `0-0` for all."""
    return "-" if entry_id == "0-0" else f"({entry_id}"


def now_ms(client: redis.Redis) -> int:
    """The server's clock."""
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000
