"""A venue on its own clock behind a network of its own, as a process: `python -m rate.venue '{"doors": […], …}'`.

It stands for all three venues (their paths do not overlap), counts what arrives in every sliding window, refuses what
is over, and keeps a record of every call. A call arrives at the time its way gives it, also if this process gets to it
a little later: its own delays lengthen answers, never what is counted. Standard output tells the ports, in JSON.
"""

from __future__ import annotations

import asyncio
import sys
import time
from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import orjson

from rate.answers import Answer, Call, Request, Room, answer, read, refusal
from rate.book import Book
from rate.rules import Rule, rules
from rate.way import Way

TICK_S = 0.02
SILENT_S = 60.0


class Clock:
    """The venue's clock: `offset_ms` from this machine's, and faster than it by `drift_ppm`."""

    def __init__(self, offset_ms: float, drift_ppm: float) -> None:
        self._began_us = time.monotonic_ns() // 1000
        self._epoch_us = time.time_ns() // 1000 + int(offset_ms * 1000)
        self._pace = 1 + drift_ppm / 1e6

    def at_us(self, steady_us: int) -> int:
        return self._epoch_us + int((steady_us - self._began_us) * self._pace)


@dataclass(slots=True)
class Ban:
    """Calls of one endpoint, or of the whole venue, are refused until then, by the venue's clock."""

    venue: str
    endpoint: str
    account: str
    kind: str
    until_ms: int

    def covers(self, call: Call) -> bool:
        whole = self.endpoint == "*"
        mine = self.account in ("*", call.account)
        return call.venue == self.venue and mine and (whole or call.endpoint == self.endpoint)


class Meter:
    """Units of one limit for one account, in the order they arrived."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._times: list[int] = []

    def count(self, venue_us: int, cost: int) -> Room:
        """Counts a call, refused or not."""
        times, window_us = self._times, self.rule.window_us
        del times[: bisect_left(times, venue_us - 2 * window_us)]
        first = bisect_left(times, venue_us - window_us + 1)
        before = len(times) - first
        for _ in range(cost):
            insort(times, venue_us)
        granted = max(0, min(cost, self.rule.units - before))
        left = max(0, self.rule.units - before - cost)
        reset_us = (times[first] if times else venue_us) + window_us
        return Room(granted, left, self.rule.units, reset_us // 1000 + 1)


@dataclass(slots=True)
class Record:
    """One call, as `rules.Arrival` has it."""

    door: int
    read_us: int
    at_us: int
    venue_us: int
    back_us: int
    venue: str
    endpoint: str
    account: str
    word: str
    ids: tuple[str, ...]

    def row(self) -> list[Any]:
        return [
            self.door,
            self.read_us,
            self.at_us,
            self.venue_us,
            self.back_us,
            self.venue,
            self.endpoint,
            self.account,
            self.word,
            list(self.ids),
        ]


class Venue:
    """The books, the limits and the record; doors hand calls in, at the time they arrive."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self.book = Book()
        self.clock = Clock(asked.get("offset_ms", 0.0), asked.get("drift_ppm", 0.0))
        self.rng = Random(asked.get("seed", 1))
        self.ways = [Way(**way) for way in asked["doors"]]
        self.records: list[Record] = []
        self.to_refuse: list[dict[str, Any]] = []
        self.bans: list[Ban] = []
        self._rules = rules(asked.get("sizes", {}))
        self._meters: dict[tuple[Rule, str], Meter] = {}

    def arrive(self, call: Call, record: Record) -> Answer:
        """Counts the call, and carries it out or refuses it."""
        self.records.append(record)
        now_ms = record.venue_us // 1000
        room, over = self._count(call, record.venue_us)
        if ban := self._banned(call, now_ms):
            record.word = "banned"
            return refusal(call, ban.kind, now_ms, ban.until_ms, room.limit)
        if ban := self._refused(call, now_ms):
            record.word = "refused"
            return refusal(call, ban.kind, now_ms, ban.until_ms, room.limit)
        if over and over.venue == "bybit" and over.name == "ip":
            record.word = "over"
            self.bans.append(Ban("bybit", "*", "*", "403", now_ms + 600_000))
            return refusal(call, "403", now_ms, 0, room.limit)
        if room.granted == 0 or (over and not over.per_order):
            record.word = "over"
            return refusal(call, "limit", now_ms, room.reset_ms, room.limit)
        record.word = "part" if over else "ok"
        return answer(call, self.book.account(call.venue, call.account), now_ms, room)

    def _count(self, call: Call, venue_us: int) -> tuple[Room, Rule | None]:
        """The room in the endpoint's own limit, and a rule that the call breaks."""
        own, broken = Room(max(1, len(call.ids)), 1, 0, venue_us // 1000), None
        for rule in self._rules:
            if not rule.covers(call.venue, call.endpoint):
                continue
            key = rule, call.account if rule.per_account else "*"
            meter = self._meters.setdefault(key, Meter(rule))
            cost = rule.cost(len(call.ids))
            room = meter.count(venue_us, cost)
            if room.granted < cost:
                broken = rule
            if rule.per_account:
                own = room
        return own, broken

    def _banned(self, call: Call, now_ms: int) -> Ban | None:
        return next((ban for ban in self.bans if ban.covers(call) and now_ms < ban.until_ms), None)

    def _refused(self, call: Call, now_ms: int) -> Ban | None:
        """A refusal that was ordered, for the first call it fits."""
        for asked in self.to_refuse:
            until_ms = now_ms + int(asked["for_ms"])
            scope = "*" if asked.get("whole") else asked["endpoint"]
            account = "*" if asked.get("whole") else call.account
            if call.venue == asked["venue"] and call.endpoint == asked["endpoint"]:
                self.to_refuse.remove(asked)
                self.bans.append(Ban(call.venue, scope, account, asked["kind"], until_ms))
                return self.bans[-1]
        return None

    # -- what a run may ask ----------------------------------------------------------------------------------------

    def asked(self, what: Mapping[str, Any]) -> Any:
        match what["do"]:
            case "give":
                return self.book.give(what["venue"], what["account"], what["count"])
            case "way":
                self.ways[what["door"]] = Way(**what["way"])
                return time.monotonic_ns() // 1000
            case "refuse":
                self.to_refuse.append(dict(what["refusal"]))
                return None
            case "clear":
                self.bans.clear()
                self.to_refuse.clear()
                return None
            case "calls":
                page = self.records[what["after"] : what["after"] + what["most"]]
                return [record.row() for record in page]
            case "ended":
                ended = self.book.account(what["venue"], what["account"]).ended
                return {str(order): at_ms for order, at_ms in ended.items()}
            case unknown:
                raise ValueError(f"no such thing to ask: {unknown}")


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection: requests with a Content-Length or none, one after the other."""

    def __init__(self, venue: Venue, door: int) -> None:
        self._venue, self._door = venue, door
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        read_us = time.monotonic_ns() // 1000
        self._buffer += data
        while request := self._next_request():
            self._travel(request, read_us)

    def _next_request(self) -> Request | None:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return None
        self._buffer = rest[length:]
        method, target, _ = first.split(" ")
        path, _, query = target.partition("?")
        return Request(method, path, query, headers, rest[:length])

    def _travel(self, request: Request, read_us: int) -> None:
        """The call is on its way: it stands at the door when its way says."""
        call, loop = read(request), asyncio.get_running_loop()
        if call is None:
            self._write(Answer(404, b"{}"))
            return
        way = self._venue.ways[self._door]
        there_s, back_s = way.draw(self._venue.rng)
        at_us = read_us + int(there_s * 1e6)
        venue_us = self._venue.clock.at_us(at_us)
        record = Record(self._door, read_us, at_us, venue_us, 0, call.venue, call.endpoint, call.account, "", call.ids)
        loop.call_at(at_us / 1e6, self._arrive, call, record, way.fate(self._venue.rng), back_s)

    def _arrive(self, call: Call, record: Record, fate: str, back_s: float) -> None:
        told, loop = self._venue.arrive(call, record), asyncio.get_running_loop()
        back_at = record.at_us / 1e6 + back_s
        match fate:
            case "silent":
                loop.call_later(SILENT_S, self._abort)
            case "reset":
                loop.call_at(back_at, self._abort)
            case _:
                loop.call_at(back_at, self._write, told, record)

    def _write(self, told: Answer, record: Record | None = None) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        headers = {"Content-Type": "application/json", **told.headers, "Content-Length": str(len(told.body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._transport.write(f"HTTP/1.1 {told.status} X\r\n{lines}\r\n".encode() + told.body)
        if record:
            record.back_us = time.monotonic_ns() // 1000

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Lag:
    """How late this process is for what it planned, in ms: its own delay, of which a run must know."""

    def __init__(self) -> None:
        self._late_ms: list[float] = []

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            self._late_ms.append((loop.time() - due) * 1000)

    def told(self) -> dict[str, float]:
        """Since the last time it was asked."""
        late, self._late_ms = sorted(self._late_ms), []
        if not late:
            return {"p50": 0.0, "p99": 0.0, "most": 0.0}
        return {"p50": late[len(late) // 2], "p99": late[len(late) * 99 // 100], "most": late[-1]}


async def serve(asked: Mapping[str, Any]) -> None:
    """Until it is terminated."""
    loop, venue, lag = asyncio.get_running_loop(), Venue(asked), Lag()

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            what = orjson.loads(line)
            told = lag.told() if what["do"] == "lag" else venue.asked(what)
            writer.write(orjson.dumps(told) + b"\n")

    doors = [partial(Connection, venue, door) for door in range(len(venue.ways))]
    servers = [await loop.create_server(door, "127.0.0.1", 0) for door in doors]
    steering = await asyncio.start_server(control, "127.0.0.1", 0)
    ports = {"doors": [_port(server) for server in servers], "control": _port(steering)}
    print(orjson.dumps(ports).decode(), flush=True)
    await lag.watch()


def _port(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    asyncio.run(serve(orjson.loads(sys.argv[1])))
