"""A lane's dead man's switch in Redis: its three keys, and one typed function for each step of `lua/guard.lua`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import orjson
import redis.asyncio as aioredis
from redis.exceptions import NoScriptError, RedisError

from cancelq.broker_async import AsyncClusterRedis
from cancelq.contract import Event, Lane
from cancelq.errors import EventError
from cancelq_worker.data_version import DATA_VERSION
from cancelq_worker.ledger import memory_key
from cancelq_worker.records import NewIntent
from cancelq_worker.scripts import SCRIPTS
from cancelq_worker.trips import ask_all, command, round_trip, script_keys

LANES_A_TRIP = 500
LANES_A_COMMAND = 50  # so that none keeps the server for long
PAGE = 500


@dataclass(frozen=True, slots=True)
class Fired:
    """A firing. `deadline`: the one that was missed, digits; `round`: how often the lane was asked to be flattened for
    it; `at_ms`: Redis' time of the first round; `state`: open, done, armed-again or given-up; `after`: the newest
    results entry before this round; `ids`: the intents of this round."""

    deadline: str
    round: int
    at_ms: int
    state: str
    after: str
    ids: tuple[str, ...]

    @classmethod
    def read(cls, kept: bytes | None) -> Fired | None:
        """The lane's key `fired`; None if there is none, or if it holds something else."""
        words = (kept or b"").decode(errors="replace").split()
        if len(words) != 6 or not (words[0].isdigit() and words[1].isdigit() and words[2].isdigit()):
            return None
        return cls(words[0], int(words[1]), int(words[2]), words[3], words[4], tuple(words[5].split(",")))

    @property
    def open(self) -> bool:
        """Whether the lane is still to be emptied for it."""
        return self.state == "open"


def guard_state(*, armed: bool, missed: bool, fired: Fired | None) -> str:
    """How a guard is, in one word: armed, missed (no worker has acted on it yet), flattening, given-up (and not armed
    since), or "" if there is nothing to tell."""
    if missed:
        return "missed"
    if fired and fired.open:
        return "flattening"
    if armed:
        return "armed"
    return "given-up" if fired and fired.state == "given-up" else ""


@dataclass(frozen=True, slots=True)
class GuardStanding:
    """How a lane's guard is. `state`: as `guard_state` tells it; `fired_ms`: Redis' time of the last firing, None if
    there was none lately."""

    state: str
    fired_ms: int | None


@dataclass(frozen=True, slots=True)
class Kept:
    """What a lane's keys of these names hold, unread: only whether there is anything to see."""

    guard: bytes | None
    armed: bytes | None
    fired: bytes | None
    timer: bytes | None
    version: bytes | None

    @property
    def newer(self) -> bool:
        """Whether the lane's data are of a newer version than this program reads."""
        return self.version is not None and int(self.version) > DATA_VERSION

    @property
    def standing(self) -> GuardStanding | None:
        """For whoever watches the guard; None if nothing of one is there."""
        if self.guard is None and self.armed is None and self.fired is None:
            return None
        fired, armed = Fired.read(self.fired), self.guard is not None
        state = guard_state(armed=armed, missed=not armed and self.armed is not None, fired=fired)
        return GuardStanding(state, fired.at_ms if fired else None)

    @property
    def empty(self) -> bool:
        fired = Fired.read(self.fired)
        return self.guard is None and self.armed is None and self.timer is None and not (fired and fired.open)


@dataclass(frozen=True, slots=True)
class Seen:
    """A lane's guard at one moment. `left_ms`: until it expires, None if there is none, -1 if it never does; `armed`:
    the last deadline that was noted, "" if none is; `timer`: whether the venue's own timer was set and not closed."""

    wall_ms: int
    left_ms: int | None
    armed: str
    fired: Fired | None
    timer: bool = False

    @property
    def missed(self) -> bool:
        """Whether the guard was armed, and is gone."""
        return self.left_ms is None and bool(self.armed)


_, *OTHERS_KEPT = (field.name for field in fields(Kept))
KEYS_KEPT = 1 + len(OTHERS_KEPT)


async def kept_of(client: aioredis.Redis, lanes: Sequence[Lane]) -> list[Kept]:
    """The keys of many lanes: one command for many of them, in a cluster one for each. Raises RedisError."""
    found: list[Kept] = []
    at_once = 1 if isinstance(client, AsyncClusterRedis) else LANES_A_COMMAND
    for start in range(0, len(lanes), LANES_A_TRIP):
        some = lanes[start : start + LANES_A_TRIP]
        commands = [("MGET", *_keys_kept(some[n : n + at_once])) for n in range(0, len(some), at_once)]
        for reply in await ask_all(client, commands):
            found += [Kept(*reply[n : n + KEYS_KEPT]) for n in range(0, len(reply), KEYS_KEPT)]
    return found


def _keys_kept(lanes: Sequence[Lane]) -> list[str]:
    """Of each lane the keys of `Kept`, in its order."""
    return [key for lane in lanes for key in (lane.guard, *map(lane.key, OTHERS_KEPT))]


async def see(client: aioredis.Redis, lanes: Sequence[Lane]) -> list[Seen | RedisError]:
    """Looks at the guards of these lanes, and notes the deadlines of those that are armed. Raises RedisError if nothing
    is known of any."""
    commands = [("EVALSHA", SCRIPTS.sha["guard"], *script_keys(client, lane.key("clock")), "see") for lane in lanes]
    replies = await round_trip(client, commands)
    if any(isinstance(reply, NoScriptError) for reply in replies):
        await SCRIPTS.load(client)
        replies = await round_trip(client, commands)
    return [reply if isinstance(reply, RedisError) else _read_seen(reply) for reply in replies]


def _read_seen(reply: Sequence[Any]) -> Seen:
    wall, left, armed, fired = reply
    return Seen(int(wall) // 1000, None if left == -2 else int(left), armed.decode(), Fired.read(fired))


async def fire(
    client: aioredis.Redis,
    lane: Lane,
    deadline: str,
    nth: int,
    at_ms: int,
    items: Sequence[NewIntent],
    event: Mapping[str, str],
) -> bool:
    """Admits the intents of one round and tells of it, in one step; false if the guard is armed again by now, or if
    another worker was first. May be repeated: an id that is known is not admitted again."""
    args: list[Any] = ["fire", deadline, nth, at_ms, len(items)]
    for item in items:
        state = item.state
        args += (item.id, memory_key(item.id), item.digest, orjson.dumps(item.record), *state.around_place())
        args += (state.queue, state.expires_ms)
    args += _flat(event)
    return bool((await SCRIPTS.run(client, "guard", [lane.key("clock")], args))[0])


async def close(client: aioredis.Redis, lane: Lane, fired: Fired, state: str, event: Mapping[str, str]) -> bool:
    """Ends a firing in that state and tells of it; false if another worker did, or went on."""
    args = ["close", fired.deadline, fired.round, state, *_flat(event)]
    return bool((await SCRIPTS.run(client, "guard", [lane.key("clock")], args))[0])


def _flat(event: Mapping[str, str]) -> list[str | int]:
    return [len(event), *(word for pair in event.items() for word in pair)]


async def outcomes(client: aioredis.Redis, lane: Lane, after: str, ids: frozenset[str]) -> tuple[str, list[Event]]:
    """The final events of these ids among a page of the results after an entry; the last entry of the page, or `after`
    if there is none."""
    found: list[Event] = []
    (page,) = await round_trip(client, [("XRANGE", lane.results, f"({after}", "+", "COUNT", PAGE)])
    if isinstance(page, RedisError):
        raise page
    for entry_id, flat in page:
        after = entry_id.decode()
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        if fields.get(b"final") == b"1" and fields.get(b"id", b"").decode(errors="replace") in ids:
            try:
                found.append(Event.read(after, fields))
            except EventError:  # of a newer version; the state tells that the intent ended
                continue
    return after, found


async def still_open(client: aioredis.Redis, lane: Lane, ids: Sequence[str]) -> list[str]:
    """Those of the intents that have not ended."""
    lines = await command(client, "HMGET", lane.key("state"), *ids)
    return [id_ for id_, line in zip(ids, lines, strict=True) if line]
