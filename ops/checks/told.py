"""The two streams of a lane, read whole: what was asked and what was told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import redis.asyncio as aioredis

from cancelq.contract import Accepted, Event, Lane, Refused, Status, read_entry

Entry = Accepted | Refused
#: An entry as the server answers it: its id, and its fields flat (name, value, name, value, …).
Raw = tuple[str, Sequence[bytes]]


@dataclass(frozen=True)
class Told:
    """`entries`: the inbox, oldest first; `events`: the results, oldest first. Operators' acts are left out of
    `events`: they are no intents' events."""

    entries: Sequence[Entry]
    events: Sequence[Event]

    @classmethod
    def read(cls, inbox: Iterable[Raw], results: Iterable[Raw]) -> Told:
        """Raises EventError for an entry of the results that is no event."""
        entries = [read_entry(entry_id, flat) for entry_id, flat in inbox]
        events = [Event.read(entry_id, dict(zip(flat[::2], flat[1::2], strict=True))) for entry_id, flat in results]
        return cls(entries, [event for event in events if event.status is not Status.operator])

    @cached_property
    def intents(self) -> dict[str, list[Entry]]:
        """Entries by intent id; more than one where an id was sent again."""
        by_id: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            by_id[entry.id].append(entry)
        return dict(by_id)

    @cached_property
    def stories(self) -> dict[str, list[Event]]:
        """All events by intent id."""
        by_id: dict[str, list[Event]] = defaultdict(list)
        for event in self.events:
            by_id[event.id].append(event)
        return dict(by_id)

    @cached_property
    def finals(self) -> dict[str, list[Event]]:
        """Final events by intent id; ids without one are absent."""
        by_id = {id_: [event for event in events if event.final] for id_, events in self.stories.items()}
        return {id_: events for id_, events in by_id.items() if events}

    @property
    def open_ids(self) -> list[str]:
        """Intents without an outcome."""
        return [id_ for id_ in self.intents if id_ not in self.finals]

    def story(self, id_: str) -> str:
        """What was told of an intent, on one line."""
        return "; ".join(f"{e.status} {e.attempt} {e.detail}" for e in self.stories.get(id_, []))


def key_of(entry: Entry) -> str:
    """The name under which a producer remembers what it meant: the id it gave, else `n:` and its field `x_n`."""
    return entry.id if entry.explicit_id else f"n:{entry.fields.get('x_n', '')}"


async def read_streams(redis: aioredis.Redis, lane: Lane) -> Told:
    """The client must leave XRANGE's replies as they are."""
    inbox = [raw async for raw in _whole(redis, lane.inbox)]
    results = [raw async for raw in _whole(redis, lane.results)]
    return Told.read(inbox, results)


async def _whole(redis: aioredis.Redis, stream: str) -> AsyncIterator[Raw]:
    at = "-"
    while True:
        page: list[Any] = await redis.execute_command("XRANGE", stream, at, "+", "COUNT", 5000)  # type: ignore[no-untyped-call]
        for entry_id, flat in page:
            yield entry_id.decode(), flat
        if len(page) < 5000:
            return
        at = f"({page[-1][0].decode()}"
