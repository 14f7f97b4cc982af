"""Everything a lane knows of one id: its intents, their orders, revocations and repeats, from streams and state.

One word is looked for, as an intent's id, an entry's id or an order's; what is found names more (the order an intent
is about, the intent a revocation withdraws, the one a redriven copy stands for), and that is looked for as well.

Streams have no index, so they are read from end to end, in pages, up to where they ended when the trace began. A
name learnt on the way was not looked for in what was read before it: that part is read again, the other way round,
until there is none. Going back and forth, a chain of names is followed in two passes, whichever way it points.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard, cast

import orjson
import redis.asyncio as aioredis

from cancelq.contract import Lane
from cancelq_worker.place import Place
from cancelq_worker.state import State
from cancelq_worker.steps import Asked, Entry, Open, Step, Waiting, read_asked, read_told, steps_of
from cancelq_worker.trips import RawEntry, command, connect

PAGE = 1000
# Bounds on what is followed and kept; a trace that meets one says so (`Trace.cut`).
NAMES_MOST = 500
ENTRIES_MOST = 5000
PASSES_MOST = 40
# An intent may settle between the reading of results and of state: then the new end of results is read.
TAIL_READS = 5
# Longer than any id that is accepted.
_NAME_MOST = 64
GONE = "not open any more, and its outcome is not among the results that were read"
_ENTRY_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
_MOST_64_BITS = 2**64 - 1

#: Called after each page: which stream, how many of its entries this pass has read, and how many it has at most.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Reach:
    """How far back one stream goes: its entries, and the time of its first in epoch ms (None: it is empty)."""

    stream: str
    length: int
    first_ms: int | None


@dataclass(frozen=True, slots=True)
class Trace:
    """What is known in one lane, in order of time. `cut`: there is more than a trace follows or keeps."""

    lane: Lane
    steps: list[Step]
    reaches: list[Reach]
    cut: bool


def reader(url: str) -> aioredis.Redis:
    """A client for `trace`: entries come as the server gave them, so that repeated fields are seen."""
    client = connect(url, timeout_s=10.0)
    client.response_callbacks.pop("XRANGE", None)
    client.response_callbacks.pop("XREVRANGE", None)
    return client


async def trace(
    redis: aioredis.Redis,
    lane: Lane,
    word: str,
    *,
    younger_than_ms: int | None = None,
    progress: Progress | None = None,
    page: int = PAGE,
) -> Trace:
    """Looks for `word` in one lane; `redis` is a `reader`, `page` how many entries are read at once. Entries older
    than `younger_than_ms` are only looked at where their entry id is known. Raises RedisError."""
    search = _Search(redis, lane, word, progress or (lambda stream, read, most: None), page)
    return await search.run(younger_than_ms)


class Names:
    """What entries are looked for by: ids of intents and of entries, order ids, client ids of a symbol."""

    def __init__(self, word: str) -> None:
        self.cut = False
        #: Every name as it stands in an entry: an entry that has none of them is passed over unread.
        self.needles: set[bytes] = set()
        self.ids: set[str] = set()
        self._orders: set[str] = set()
        # For each client id the symbols it is looked for in; None: in any.
        self._clients: dict[str, set[str | None]] = {}
        entry_id = canonical(word)
        for name in {word, entry_id} if entry_id else {word}:
            self.ids.add(name)
            self.needles.add(name.encode())
        self._orders.add(word)
        self._clients[word] = {None}

    def __len__(self) -> int:
        return len(self.ids) + len(self._orders) + sum(map(len, self._clients.values()))

    def entry_ids(self) -> list[str]:
        """Names that may be the id of an entry."""
        return [name for name in self.ids if canonical(name) == name]

    def match(self, entry: Entry) -> str | None:
        """The field by which an entry belongs here, or None."""
        fields = entry.fields
        if entry.id in self.ids:
            return "id"
        for name in ("origin", "target"):
            if fields.get(name) in self.ids:
                return name
        for name in ("order_id", "child_order_id"):
            if fields.get(name) in self._orders:
                return name
        symbols = self._clients.get(fields.get("client_order_id", ""))
        symbol = fields.get("symbol")
        if symbols and (symbol is None or None in symbols or symbol in symbols):
            return "client_order_id"
        return None

    def learn(self, entry: Entry) -> bool:
        """Adds what an entry that belongs here names; True if that is new."""
        if entry.is_act:
            return False
        before, fields = len(self), entry.fields
        targets = [fields.get("target")] if fields.get("scope") == "revoke" else []
        for name in (entry.id, fields.get("origin"), *targets):
            if self._may_add(name, self.ids):
                self.ids.add(name)
        for name in (fields.get("order_id"), fields.get("child_order_id")):
            if self._may_add(name, self._orders):
                self._orders.add(name)
        # By a client id alone, without its symbol, other pairs' orders would be drawn in.
        client, symbol = fields.get("client_order_id"), fields.get("symbol")
        known = self._clients.get(client or "", set())
        if symbol is not None and None not in known and symbol not in known and self._may_add(client, ()):
            self._clients.setdefault(client, set()).add(symbol)
        return len(self) > before

    def _may_add(self, name: str | None, known: Container[str]) -> TypeGuard[str]:
        """Whether this is a new name and there is room for it; an entry that holds it is looked at from now on."""
        if not name or len(name) > _NAME_MOST or name in known:
            return False
        if len(self) >= NAMES_MOST:
            self.cut = True
            return False
        self.needles.add(name.encode())
        return True


@dataclass(slots=True)
class _Stream:
    """One stream of the lane as it was when the trace began, and what was found in it."""

    key: str
    name: str
    read: Callable[[str, Sequence[bytes]], Entry]
    start: str = "-"
    end: str = ""
    length: int = 0
    first_ms: int | None = None
    found: dict[str, Entry] = field(default_factory=dict)
    #: How many names there were when all of it had been searched for them.
    searched: int = 0

    @property
    def sorted(self) -> list[Entry]:
        return [self.found[entry_id] for entry_id in sorted(self.found, key=_position)]


class _Search:
    def __init__(self, redis: aioredis.Redis, lane: Lane, word: str, progress: Progress, page: int) -> None:
        self._redis = redis
        self._lane = lane
        self._word = word
        self._progress = progress
        self._page = page
        self._names = Names(word)
        self._found_by: dict[str, str] = {}
        self._inbox = _Stream(lane.inbox, f"{lane} inbox", read_asked)
        self._results = _Stream(lane.results, f"{lane} results", read_told)
        self._fetched: set[str] = set()
        self._passes = 0
        self._cut = False

    async def run(self, younger_than_ms: int | None) -> Trace:
        streams = (self._inbox, self._results)
        for stream in streams:
            await self._measure(stream, younger_than_ms)
        await self._find_open()
        await self._find_told()
        entry_id = canonical(self._word)
        if entry_id and not self._found_by:
            # Only now: entries of both streams often have the same id, and an intent's comes first.
            await self._fetch_one(self._results, entry_id, anyway=True)
            await self._find_told()
        still_open = await self._still_open()
        now_us = _micros(await self._redis.time())
        return Trace(
            self._lane,
            steps_of(self._lane, self._inbox.sorted, self._results.sorted, still_open, self._found_by, now_us),
            [Reach(stream.name, stream.length, stream.first_ms) for stream in streams],
            self._cut or self._names.cut,
        )

    async def _measure(self, stream: _Stream, younger_than_ms: int | None) -> None:
        first = await self._range(stream, "-", "+", 1)
        last = await self._range(stream, "+", "-", 1, back=True)
        stream.length = await self._redis.xlen(stream.key)
        stream.first_ms = _position(first[0][0])[0] if first else None
        stream.end = last[0][0] if last else ""
        if younger_than_ms is not None:
            now_ms = _micros(await self._redis.time()) // 1000
            stream.start = str(max(0, now_ms - younger_than_ms))

    # -- what the streams tell

    async def _find_told(self) -> None:
        """Searches both streams until every name was looked for in both."""
        streams = (self._inbox, self._results)
        while await self._fetch() or any(stream.searched != len(self._names) for stream in streams):
            for stream in streams:
                if stream.end and stream.searched != len(self._names):
                    await self._search(stream)
                stream.searched = len(self._names)

    async def _search(self, stream: _Stream) -> None:
        """Reads a stream until every name was looked for in all of it: forth, then back over what came before the
        last name that was learnt, then forth over what came after the earliest of those, and so on."""
        low, high, back = stream.start, stream.end, False
        while True:
            self._passes += 1
            if self._passes > PASSES_MOST:
                self._cut = True
                return
            learnt_at = await self._pass(stream, low, high, back=back)
            if learnt_at is None:
                return
            low, high, back = (learnt_at, stream.end, False) if back else (stream.start, learnt_at, True)

    async def _pass(self, stream: _Stream, low: str, high: str, *, back: bool) -> str | None:
        """Reads a part of a stream; the last entry that taught a new name."""
        learnt_at, needles, read = None, self._names.needles, 0
        async for page in self._pages(stream, low, high, back=back):
            for entry_id, flat in page:
                if not needles.isdisjoint(flat) and self._take(stream, entry_id, flat):
                    learnt_at = entry_id
            read += len(page)
            self._progress(stream.name, read, stream.length)
        return learnt_at

    async def _pages(self, stream: _Stream, low: str, high: str, *, back: bool) -> AsyncIterator[list[RawEntry]]:
        start, end = (high, low) if back else (low, high)
        while True:
            page = await self._range(stream, start, end, self._page, back=back)
            yield page
            if len(page) < self._page:
                return
            start = f"({page[-1][0]}"

    async def _range(self, stream: _Stream, start: str, end: str, count: int, *, back: bool = False) -> list[RawEntry]:
        reply = await command(self._redis, "XREVRANGE" if back else "XRANGE", stream.key, start, end, "COUNT", count)
        return [(entry_id.decode(), flat) for entry_id, flat in reply]

    async def _fetch(self) -> bool:
        """Fetches the inbox entries whose own id is a name; True if one taught a new name."""
        taught = False
        for name in self._names.entry_ids():
            if name not in self._fetched:
                self._fetched.add(name)
                # Another intent's entry may have the id that is only a name here: it counts if it was asked for.
                asked_for = name == canonical(self._word)
                taught = await self._fetch_one(self._inbox, name, anyway=asked_for) or taught
        return taught

    async def _fetch_one(self, stream: _Stream, name: str, *, anyway: bool) -> bool:
        for entry_id, flat in await self._range(stream, name, name, 1):
            return self._take(stream, entry_id, flat, otherwise="entry_id" if anyway else None)
        return False

    def _take(self, stream: _Stream, entry_id: str, flat: Sequence[bytes], otherwise: str | None = None) -> bool:
        """Keeps an entry if it belongs here, by a name or else for the reason given; True if it taught a new name."""
        if entry_id in stream.found:
            return False
        entry = stream.read(entry_id, flat)
        by = self._names.match(entry) or otherwise
        if by is None:
            return False
        if len(stream.found) >= ENTRIES_MOST and not (entry.final and len(stream.found) < 2 * ENTRIES_MOST):
            self._cut = True
            return False
        stream.found[entry_id] = entry
        self._found_by.setdefault(entry.id, by)
        return self._names.learn(entry)

    # -- what the state tells

    async def _find_open(self) -> None:
        """Learns from open intents that name the word: as an order, which the streams may not tell (an id learnt
        from the venue), or as their own id, where the inbox does not reach back to them."""
        ids = {self._word}
        cursor = 0
        while True:
            wanted = f"*:{_as_glob(self._word)}"
            after, page = await command(
                self._redis, "HSCAN", self._lane.key("orders"), cursor, "MATCH", wanted, "COUNT", PAGE
            )
            for listed in page.values():
                ids.update(listed.decode().split())
            cursor = int(after)
            if cursor == 0 or len(ids) > NAMES_MOST:
                break
        for id_, (state, record) in (await self._states(ids)).items():
            entry = _as_entry(id_, state, record)
            by = self._names.match(entry)
            if by is not None:
                self._found_by.setdefault(id_, by)
                self._names.learn(entry)

    async def _states(self, ids: Iterable[str]) -> dict[str, tuple[State | None, dict[str, str]]]:
        """State and record of those that are open; a state that cannot be read is None, a record then empty."""
        asked = sorted(ids)
        if not asked:
            return {}
        lines = await command(self._redis, "HMGET", self._lane.key("state"), *asked)
        records = await command(self._redis, "HMGET", self._lane.key("intents"), *asked)
        return {
            id_: (_state(line), _record(record))
            for id_, line, record in zip(asked, lines, records, strict=True)
            if line is not None
        }

    async def _still_open(self) -> dict[str, Open]:
        """What is still open of everything found, and what should be open or ended and is neither."""
        for _ in range(TAIL_READS):
            # In this order: what is admitted and settled between two of these reads is never told as lost.
            cursor = await cast("Awaitable[bytes | None]", self._redis.get(self._lane.key("cursor")))
            ahead = self._ahead(cursor.decode() if cursor else "0-0")
            states = await self._states({*self._found_by, *self._names.ids})
            gone = self._unended() - states.keys() - ahead
            if not gone or not await self._read_tail():
                break
        place = Place(self._redis, self._lane)
        still_open = {
            id_: Open(await place.of(id_, state, record), state, record) for id_, (state, record) in states.items()
        }
        for id_ in ahead - states.keys():
            still_open[id_] = Open(await place.of_unread())
        for id_ in gone & self._unended() - still_open.keys():
            still_open[id_] = Open(Waiting("gone", detail=GONE))
        return still_open

    def _ahead(self, cursor: str) -> set[str]:
        """Ids of inbox entries that no worker has passed yet."""
        return {entry.id for entry in self._inbox.found.values() if _position(entry.entry_id) > _position(cursor)}

    def _unended(self) -> set[str]:
        """Ids that were found and have no final event; an operator's act is no intent."""
        told = self._results.found.values()
        return {*self._found_by} - {entry.id for entry in told if entry.final or entry.is_act} - {""}

    async def _read_tail(self) -> bool:
        """Reads what results got since; False if that is nothing. A name that is learnt here is not looked for
        further back: what came after the trace began is not its matter."""
        low = f"({self._results.end}" if self._results.end else "-"
        last = await self._range(self._results, "+", "-", 1, back=True)
        if not last or last[0][0] == self._results.end:
            return False
        self._results.end = last[0][0]
        await self._pass(self._results, low, self._results.end, back=False)
        return True


def canonical(name: str) -> str | None:
    """An entry id as the server writes it, if this is one."""
    match = _ENTRY_ID.fullmatch(name)
    if not match or max(int(match[1]), int(match[2])) > _MOST_64_BITS:
        return None
    return f"{int(match[1])}-{int(match[2])}"


def _as_entry(id_: str, state: State | None, record: Mapping[str, str]) -> Entry:
    """An open intent as if it were an inbox entry, with the ids that were learnt from the venue."""
    fields = dict(record)
    for name, note in (("order_id", "oid"), ("client_order_id", "cid")):
        learnt = state.notes.get(note) if state else None
        if isinstance(learnt, str):
            fields.setdefault(name, learnt)
    return Entry("", id_, fields, None, Asked(tuple(record.items())))


def _state(line: bytes) -> State | None:
    try:
        return State.parse(line)
    except ValueError:
        return None


def _record(packed: bytes | None) -> dict[str, str]:
    try:
        record: Any = orjson.loads(packed or b"{}")
    except ValueError:
        return {}
    return {name: value for name, value in record.items() if isinstance(value, str)} if isinstance(record, dict) else {}


def _as_glob(word: str) -> str:
    return re.sub(r"([\\*?\[\]^])", r"\\\1", word)


def _position(entry_id: str) -> tuple[int, int]:
    ms, _, number = entry_id.partition("-")
    return int(ms), int(number or 0)


def _micros(now: tuple[int, int]) -> int:
    return now[0] * 1_000_000 + now[1]
