"""What a lane's keys say of each intent: whether it is there whole, or settled whole, and never something between."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from redis import Redis

from cancelq.contract import Lane, read_entry
from cancelq_worker.ledger import memory_key
from cancelq_worker.state import State

Id = str


@dataclass
class Kept:
    """A lane, read whole from its server."""

    asked: list[tuple[str, Id, bool]]  # entry id, intent id, whether the producer chose it
    finals: Counter[Id]
    records: set[Id]
    states: dict[Id, State]
    places: dict[Id, list[str]]  # where it waits: queues, `timed`, `leases`
    orders: dict[str, set[Id]]
    expiry: set[Id]
    remembered: set[bytes]
    cursor: tuple[int, int]
    ahead: set[str]
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Judged:
    """`settled`, `open` and `unread` intents of a lane, and what stands half: one line for each."""

    settled: int
    open: int
    unread: int
    halves: list[str]


def judge(client: Redis, lane: Lane) -> Judged:
    """Every intent is fully settled, or fully open, or not admitted at all."""
    kept = read(client, lane)
    halves, admitted = list(kept.faults), set[Id]()
    for entry_id, id_, explicit in kept.asked:
        if _order(entry_id) > kept.cursor and entry_id not in kept.ahead:
            continue
        first = id_ not in admitted
        admitted.add(id_)
        if first:
            halves += [f"{lane} {id_}: {fault}" for fault in _faults(kept, id_, explicit)]
    unasked = (set(kept.finals) | kept.records | set(kept.states)) - admitted
    halves += [f"{lane} {id_}: is settled or open, and was not admitted" for id_ in unasked]
    halves += [f"{lane}: order {key} is said to be named by {id_}, which does not" for key, id_ in _wrong_names(kept)]
    ids = {id_ for _, id_, _ in kept.asked}
    return Judged(len(kept.finals), len(kept.records), len(ids - admitted), halves)


def _faults(kept: Kept, id_: Id, explicit: bool) -> list[str]:
    ends, places = kept.finals[id_], kept.places.get(id_, [])
    if ends > 1:
        return [f"{ends} final events"]
    if ends == 0:
        return _faults_of_open(kept, id_, places)
    faults = []
    if id_ in kept.records or id_ in kept.states:
        faults.append("settled, and its record or state is still there")
    if places or id_ in kept.expiry:
        faults.append(f"settled, and waits in {places or 'expiry'}")
    if any(id_ in ids for ids in kept.orders.values()):
        faults.append("settled, and stands in the index of orders")
    if explicit and memory_key(id_) not in kept.remembered:
        faults.append("settled, and its id is not remembered")
    return faults


def _faults_of_open(kept: Kept, id_: Id, places: list[str]) -> list[str]:
    faults = []
    if id_ not in kept.records or id_ not in kept.states:
        return [f"no final event, and of record and state: {id_ in kept.records}, {id_ in kept.states}"]
    if len(places) != 1:
        faults.append(f"open, and waits in {places or 'no place'}")
    if memory_key(id_) in kept.remembered:
        faults.append("open, and its id is remembered as settled")
    named = kept.states[id_].orders if kept.states[id_].cancel_class != "local" else ()
    if missing := [key for key in named if id_ not in kept.orders.get(key, set())]:
        faults.append(f"open, and missing in the index of {missing}")
    return faults


def _wrong_names(kept: Kept) -> list[tuple[str, Id]]:
    return [
        (key, id_)
        for key, ids in kept.orders.items()
        for id_ in ids
        if id_ not in kept.states or key not in kept.states[id_].orders
    ]


def read(client: Redis, lane: Lane) -> Kept:
    """Everything of the lane that tells of its intents."""
    pipe = client.pipeline(transaction=False)
    for stream in (lane.inbox, lane.results):
        pipe.execute_command("XRANGE", stream, "-", "+")  # type: ignore[no-untyped-call]
    pipe.hkeys(lane.key("intents"))
    pipe.hgetall(lane.key("state"))
    pipe.hgetall(lane.key("orders"))
    pipe.zrange(lane.key("expiry"), 0, -1)
    pipe.get(lane.key("cursor"))
    pipe.smembers(lane.key("ahead"))
    inbox, results, records, states, orders, expiry, cursor, ahead = pipe.execute()
    places, remembered = _places(client, lane)
    return Kept(
        [_asked(entry_id.decode(), fields) for entry_id, fields in inbox],
        Counter(fields[b"id"].decode() for _, fields in results if fields[b"final"] == b"1"),
        {id_.decode() for id_ in records},
        {id_.decode(): State.parse(line) for id_, line in states.items()},
        places,
        {key.decode(): set(ids.decode().split()) for key, ids in orders.items()},
        {id_.decode() for id_ in expiry},
        remembered,
        _order(cursor.decode()) if cursor else (0, 0),
        {entry_id.decode() for entry_id in ahead},
    )


def _places(client: Redis, lane: Lane) -> tuple[dict[Id, list[str]], set[bytes]]:
    root = lane.key("")
    keys = sorted(key.decode() for key in client.scan_iter(match=f"{root}*", count=1000))
    queues = [key for key in keys if key.startswith(f"{root}queue:") or key in (f"{root}timed", f"{root}leases")]
    hashes = [key for key in keys if key.startswith((f"{root}ids:", f"{root}memory:"))]
    pipe = client.pipeline(transaction=False)
    for key in queues:
        pipe.zrange(key, 0, -1)
    for key in hashes:
        pipe.hkeys(key)
    replies = pipe.execute()
    places: dict[Id, list[str]] = {}
    for key, ids in zip(queues, replies, strict=False):
        for id_ in ids:
            places.setdefault(id_.decode(), []).append(key.removeprefix(root))
    return places, {id_ for ids in replies[len(queues) :] for id_ in ids}


def _asked(entry_id: str, fields: dict[bytes, bytes]) -> tuple[str, Id, bool]:
    entry = read_entry(entry_id, fields)
    return entry_id, entry.id, entry.explicit_id


def _order(entry_id: str) -> tuple[int, int]:
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq or 0)
