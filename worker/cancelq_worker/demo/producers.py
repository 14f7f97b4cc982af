"""The producers of the demo: threads that ask for cancels on every lane as strategy engines do, and keep what they
asked.

Three use the client package; the desk knows nothing but Redis, as a producer in any other language would.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from typing import cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from cancelq import Client, Ticket
from cancelq.contract import Lane
from cancelq.errors import CancelqError
from cancelq_worker.demo.script import Ask, Producer, Script
from cancelq_worker.demo.tables import Asked

# Entries per round trip.
CHUNK = 100
# Who takes its time sends so many a second, but is at it for no less and no more than these seconds.
PACE = 150
LEAST_S = 2.0
MOST_S = 8.0
# An urgent intent that others refer to has its outcome long before this.
OUTCOME_S = 30.0


class Sender(threading.Thread):
    """One producer at work. After `join`, `asked` holds what it sent on each lane and `error` why it stopped early, if
    so."""

    def __init__(self, who: Producer, script: Script, order_ids: Sequence[Sequence[str]], redis_url: str) -> None:
        super().__init__(name=f"producer {who}", daemon=True)
        self.who = who
        self.asked: dict[Lane, list[Asked]] = {lane: [] for lane in script.lanes}
        self.error: Exception | None = None
        self._asks = {part.lane: part.asks[who] for part in script.parts}
        self._order_ids = dict(zip(script.lanes, order_ids, strict=True))
        self._redis_url = redis_url
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Ends the sending soon."""
        self._stopped.set()

    def run(self) -> None:
        send = {Producer.desk: self._plain, Producer.hedge: self._steadily}.get(self.who, self._in_bulk)
        try:
            send()
        except (CancelqError, RedisError) as error:
            self.error = error

    def _in_bulk(self) -> None:
        with Client(self._redis_url) as client:
            for lane, chunk in self._chunks():
                sent = [self._fields(lane, ask) for ask in chunk]
                tickets = client.submit_many(lane, sent)
                for ask, fields, ticket in zip(chunk, sent, tickets, strict=True):
                    self._note(lane, ask, fields, ticket.id, ticket.entry_id)

    def _steadily(self) -> None:
        """One at a time, those of each lane spread evenly; waits where an entry refers to another's outcome."""
        spread_s = min(MOST_S, max(LEAST_S, sum(map(len, self._asks.values())) / PACE))
        begun_s = time.monotonic()
        tickets: dict[tuple[Lane, str], Ticket] = {}
        with Client(self._redis_url) as client:
            for share, lane, ask in self._spread():
                if self._stopped.wait(max(0.0, begun_s + spread_s * share - time.monotonic())):
                    return
                if ask.after:
                    tickets[lane, ask.after].wait(OUTCOME_S)
                fields = self._fields(lane, ask)
                ticket = client.submit(lane, fields)
                tickets.setdefault((lane, ticket.id), ticket)
                self._note(lane, ask, fields, ticket.id, ticket.entry_id)

    def _plain(self) -> None:
        with Redis.from_url(self._redis_url, retry=Retry(NoBackoff(), 0), socket_timeout=5.0) as redis:
            for lane, chunk in self._chunks():
                with redis.pipeline(transaction=False) as pipeline:
                    sent = [self._fields(lane, ask) for ask in chunk]
                    for fields in sent:
                        pipeline.execute_command("XADD", lane.inbox, "NOMKSTREAM", "*", *_flat(fields))
                    entry_ids = cast(list[bytes], pipeline.execute())
                for ask, fields, entry_id in zip(chunk, sent, entry_ids, strict=True):
                    self._note(lane, ask, fields, _id_of(fields, entry_id.decode()), entry_id.decode())

    def _chunks(self) -> Iterator[tuple[Lane, list[Ask]]]:
        """The lane with the fewest first, so that no lane waits for the others' entries."""
        for lane, asks in sorted(self._asks.items(), key=lambda item: len(item[1])):
            for at in range(0, len(asks), CHUNK):
                if self._stopped.is_set():
                    return
                yield lane, asks[at : at + CHUNK]

    def _spread(self) -> list[tuple[float, Lane, Ask]]:
        """All lanes' asks in one row, each at its share of the time."""
        placed = [(n / len(asks), lane, ask) for lane, asks in self._asks.items() for n, ask in enumerate(asks)]
        return sorted(placed, key=lambda one: one[0])

    def _fields(self, lane: Lane, ask: Ask) -> dict[str, str]:
        now_ms = time.time_ns() // 1_000_000
        fields = dict(ask.fields)
        # No label on the desk's entries: what they hold is what the audit is about.
        if self.who is not Producer.desk:
            fields["strategy"] = self.who.value
        if ask.names is not None:
            fields["order_id"] = self._order_ids[lane][ask.names]
        if ask.not_before_in_ms is not None:
            fields["not_before_ms"] = str(now_ms + ask.not_before_in_ms)
        if ask.expires_in_ms is not None:
            fields["expires_at_ms"] = str(now_ms + ask.expires_in_ms)
        if ask.older_than_age_ms is not None:
            fields["older_than_ms"] = str(now_ms - ask.older_than_age_ms)
        return fields

    def _note(self, lane: Lane, ask: Ask, fields: dict[str, str], id_: str, entry_id: str) -> None:
        ids = self._order_ids[lane]
        self.asked[lane].append(
            Asked(
                ask.kind,
                id_,
                entry_id,
                ask.expected,
                orders=tuple(ids[position] for position in ask.orders),
                spared=tuple(ids[position] for position in ask.spared),
                target=ask.fields.get("target", ""),
                says=ask.says,
                repeats=ask.repeats,
                differs=ask.differs,
                not_before_us=int(fields.get("not_before_ms", "0")) * 1000,
            )
        )


def _flat(fields: dict[str, str]) -> Iterator[str]:
    for name, value in fields.items():
        yield name
        yield value


def _id_of(fields: dict[str, str], entry_id: str) -> str:
    """Under which id the outcome comes: the producer's own, unless it could be taken for an entry's."""
    given = fields.get("id", "")
    return entry_id if not given or re.fullmatch("[0-9]+-[0-9]+", given) else given
