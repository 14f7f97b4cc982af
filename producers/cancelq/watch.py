"""Who waits for which outcome of a lane, and what has to be read to find it. No I/O.

Reading is written as generators that yield a command and are sent the entries it brought, so that threads and
tasks share all of it but the waiting.
"""

import asyncio
import threading
from collections.abc import Generator, Mapping
from typing import Any
from weakref import ReferenceType, ref

from cancelq.contract import Event, Lane
from cancelq.errors import BrokerDown, BrokerRefused, CancelqError, EventError
from cancelq.link import BLOCK_MS, Command

# Events per read.
PAGE = 1000
# How far back the outcome of an id is searched that turns out to have been queued before.
LOOK_BACK_PAGES = 100

# Slots of a lane before the dead are cleared for the first time.
SLOTS_LIMIT = 1024

# Refusals that waiting does not mend.
_HOPELESS = frozenset({"NOPERM", "NOAUTH", "WRONGPASS", "WRONGTYPE"})

# An entry's id, and its names and values in turn.
Entry = tuple[str, list[bytes]]
# Yields commands, takes the entries each brought, returns how many events were new.
Reads = Generator[Command, list[Entry], int]


class Slot:
    """Where the outcome of one id arrives; the tickets of an id share it, it goes with the last of them."""

    # Class attributes until they change: every intent of a batch has a slot, and few are looked at.
    # The final event, or why it cannot be read.
    outcome: Event | EventError | None = None
    later: Mapping[int, Event] = {}
    # The entries of which an event said that their id was queued before (those of workers before 0.2: their times in
    # ms), and those among them of other content.
    repeats: frozenset[str] = frozenset()
    differing: frozenset[str] = frozenset()
    _signal: "asyncio.Future[None] | None" = None

    def settle(self, outcome: Event | EventError) -> None:
        if self.outcome is None:
            self.outcome = outcome
        elif isinstance(outcome, Event) and outcome.queued_us is not None:
            # An id that was forgotten in between was asked for once more.
            self.later = {**self.later, outcome.queued_us // 1000: outcome}
        self.wake()

    def event_of(self, entry_id: str) -> Event | None:
        """The final event that came of that entry, if it is known; that of the first one where it was a repeat."""
        if entry_id in self.differing:
            return None
        if (later := self.later.get(_ms(entry_id))) is not None:
            return later
        if not isinstance(self.outcome, Event):
            return None
        queued_us, ms = self.outcome.queued_us, _ms(entry_id)
        own = queued_us is None or queued_us // 1000 == ms
        return self.outcome if own or not self.repeats.isdisjoint((entry_id, str(ms))) else None

    def repeat(self, entry: str, *, differs: bool) -> None:
        """That entry bore an id that was queued before."""
        self.repeats |= {entry}
        if differs:
            self.differing |= {entry}
        self.wake()

    def settles(self, entry_id: str) -> bool:
        """Whether nothing more need be read to know what became of that entry."""
        told = entry_id in self.differing or isinstance(self.outcome, EventError)
        return told or self.event_of(entry_id) is not None

    def wake(self) -> None:
        if self._signal is not None and not self._signal.done():
            self._signal.set_result(None)

    def signal(self) -> "asyncio.Future[None]":
        """For tasks: done when there is an outcome, or none will be read any more."""
        if self._signal is None or self._signal.done():
            self._signal = asyncio.get_running_loop().create_future()
        return self._signal


class Watch:
    """What one client has read of one lane's results.

    Read without a hole is what lies between `start_ms` and `position`. A ticket older than that needs the gap
    before it closed. A ticket newer than that, while nobody waits, moves the watch on, past what nobody asked
    for.
    """

    def __init__(self, lane: Lane, look_back_pages: int = LOOK_BACK_PAGES) -> None:
        self.lane = lane
        self._look_back_pages = look_back_pages
        self.waiting = 0
        # Why nothing can be read just now.
        self.trouble: CancelqError | None = None
        self._start_ms: int | None = None
        self._wanted_ms = 0
        self._position = "0-0"
        # Cleared of dead slots whenever it has doubled: a WeakValueDictionary clears them one by one, which
        # takes four times as long.
        self._slots: dict[str, ReferenceType[Slot]] = {}
        self._slots_limit = SLOTS_LIMIT
        self._adding = threading.Lock()
        # Threads: one reads for all, the others wait for it.
        self.turn = threading.Condition()
        self.reading = False
        self.catching_up = threading.Lock()
        # Tasks: one reader in the background.
        self.reader: asyncio.Task[None] | None = None
        self.reader_catching_up = asyncio.Lock()
        self.failure: CancelqError | Exception | None = None

    def slot(self, id: str) -> Slot:
        """Where the outcome of that id will arrive."""
        with self._adding:
            reference = self._slots.get(id)
            slot = reference() if reference is not None else None
            if slot is None:
                slot = Slot()
                self._slots[id] = ref(slot)
                if len(self._slots) > self._slots_limit:
                    self._clear_the_dead()
            return slot

    def aim(self, since_ms: int) -> bool:
        """Sees to it that events from then on are read; True if that takes a `catch_up`."""
        start_ms = self._start_ms
        idle = not self.waiting
        if start_ms is None or (idle and (since_ms > _ms(self._position) or self._nothing_read)):
            self._start_ms = self._wanted_ms = since_ms
            self._position = f"{since_ms}-0"
        self._wanted_ms = min(self._wanted_ms, since_ms)
        return self._has_gap

    def catch_up(self) -> Reads:
        """Closes the gap before what has been read."""
        while self._start_ms is not None and self._has_gap:
            wanted_ms, end = self._wanted_ms, str(self._start_ms)
            start: str | None = str(wanted_ms)
            while start is not None:
                page = yield ("XRANGE", self.lane.results, start, end, "COUNT", str(PAGE))
                yield from self._settle(page)
                start = _after(page)
            self._start_ms = min(self._start_ms, wanted_ms)
        return 0

    def read_on(self, wait_ms: float) -> Reads:
        """Reads the next events, waiting for them that long; one thread or task at a time may do this."""
        yield from self.catch_up()
        asked = self._position
        page = yield read_after(self.lane, asked, wait_ms)
        # Unless somebody aimed elsewhere meanwhile.
        if page and self._position == asked:
            self._position = page[-1][0]
        yield from self._settle(page)
        return len(page)

    def stumbled(self, trouble: BrokerDown | BrokerRefused) -> None:
        """Remembers why nothing could be read; raises it if trying again is of no use."""
        self.trouble = trouble
        if isinstance(trouble, BrokerRefused) and trouble.code in _HOPELESS:
            raise trouble

    def fail(self, failure: Exception) -> None:
        """Hands what ended the reader to all tasks that wait."""
        self.failure = failure
        for reference in list(self._slots.values()):
            if (slot := reference()) is not None:
                slot.wake()

    def _clear_the_dead(self) -> None:
        for id, reference in list(self._slots.items()):
            if reference() is None:
                del self._slots[id]
        self._slots_limit = max(SLOTS_LIMIT, 2 * len(self._slots))

    @property
    def _has_gap(self) -> bool:
        return self._start_ms is not None and self._wanted_ms < self._start_ms

    @property
    def _nothing_read(self) -> bool:
        return self._position == f"{self._start_ms}-0"

    def _settle(self, page: list[Entry]) -> Generator[Command, list[Entry], None]:
        """Settles what these events settle, and looks further back for what they say was settled before."""
        for slot, duplicate in self._match(page):
            start: str | None = f"({duplicate}"
            for _ in range(self._look_back_pages):
                if slot.outcome is not None or start is None:
                    break
                older = yield ("XREVRANGE", self.lane.results, start, "-", "COUNT", str(PAGE))
                self._match(older)
                start = _after(older)

    def _match(self, page: list[Entry]) -> list[tuple[Slot, str]]:
        """Settles slots; returns those an event calls duplicate for the first time, with that event's id."""
        duplicates: list[tuple[Slot, str]] = []
        for entry_id, flat in page:
            fields = pairs(flat)
            reference = self._slots.get(fields.get(b"id", b"").decode(errors="replace"))
            slot = reference() if reference is not None else None
            if slot is None:
                continue
            if fields.get(b"status") == b"duplicate":
                if not slot.repeats and slot.outcome is None:
                    duplicates.append((slot, entry_id))
                slot.repeat(_repeated(fields), differs=fields.get(b"differs") == b"1")
            elif fields.get(b"final") == b"1":
                try:
                    slot.settle(Event.read(entry_id, fields))
                except EventError as unreadable:
                    slot.settle(unreadable)
        return duplicates


class Watches:
    """One watch per lane."""

    def __init__(self) -> None:
        self._by_lane: dict[Lane, Watch] = {}
        self._adding = threading.Lock()

    def of(self, lane: Lane) -> Watch:
        watch = self._by_lane.get(lane)
        if watch is None:
            with self._adding:
                watch = self._by_lane.setdefault(lane, Watch(lane))
        return watch

    def all(self) -> list[Watch]:
        return list(self._by_lane.values())


def read_after(lane: Lane, position: str, wait_ms: float) -> Command:
    """Reads the results after an entry, waiting for some at most that long, and no longer than `BLOCK_MS`."""
    # BLOCK 0 would wait for ever.
    block = ("BLOCK", str(min(int(wait_ms), BLOCK_MS))) if wait_ms >= 1 else ()
    return ("XREAD", "COUNT", str(PAGE), *block, "STREAMS", lane.results, position)


def newest(lane: Lane) -> Command:
    """Reads the last event there is."""
    return ("XREVRANGE", lane.results, "+", "-", "COUNT", "1")


def entries(reply: Any) -> list[Entry]:
    """The entries of one stream, whichever command (XRANGE, XREVRANGE, XREAD) and protocol brought them."""
    if not reply:
        return []
    if isinstance(reply, dict):
        (reply,) = reply.values()
    elif isinstance(reply[0][1][0], list):
        ((_, reply),) = reply
    return [(entry_id.decode(), flat) for entry_id, flat in reply]


def pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    """The fields of an entry."""
    texts = iter(flat)
    return dict(zip(texts, texts, strict=False))


def _repeated(fields: dict[bytes, bytes]) -> str:
    """The entry that a duplicate event is about, or its time in ms."""
    entry = fields.get(b"entry") or fields.get(b"queued_us", b"")[:-3]
    return entry.decode(errors="replace")


def _after(page: list[Entry]) -> str | None:
    """Where the next page begins; None behind the last one."""
    return f"({page[-1][0]}" if len(page) == PAGE else None


def _ms(entry_id: str) -> int:
    return int(entry_id.partition("-")[0])
