"""How the guards of lanes are, for people and programs. Needs Redis and no key, and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio as aioredis

from cancelq.contract import Lane
from cancelq_worker.guard_ledger import Fired, guard_state
from cancelq_worker.trips import ask_all


@dataclass(frozen=True, slots=True)
class GuardStatus:
    """One lane's guard. `left_ms`: until it expires, None if there is none, -1 if it never does; `missed`: it was armed
    and is gone, and no worker has acted on it yet; `fired`: the last firing, None if there was none lately."""

    left_ms: int | None
    missed: bool
    fired: Fired | None

    @property
    def trouble(self) -> bool:
        """Whether a missed deadline has not led to an empty lane so far."""
        return self.state in ("missed", "flattening", "given-up")

    @property
    def state(self) -> str:
        """As `guard_state` tells it."""
        return guard_state(armed=self.left_ms is not None, missed=self.missed, fired=self.fired)

    @property
    def text(self) -> str:
        """In a few words; "" for a lane that is not guarded and was not flattened lately."""
        if self.missed:
            return "guard missed, no worker has flattened the lane yet"
        words = []
        if self.left_ms is not None:
            left = f"{self.left_ms / 1000:.1f} s left" if self.left_ms >= 0 else "without an end: it never fires"
            words.append(f"guard armed, {left}")
        if self.fired and self.state == "flattening":
            words.append(f"guard fired, flattening (round {self.fired.round})")
        elif self.fired and self.state == "given-up":
            words.append(f"guard fired, given up after {self.fired.round} rounds: a person must look")
        return "; ".join(words)

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
        fired = self.fired
        return {
            "armed": self.left_ms is not None,
            "left_ms": self.left_ms,
            "missed": self.missed,
            "fired": fired
            and {"deadline_ms": int(fired.deadline), "at_ms": fired.at_ms, "round": fired.round, "state": fired.state},
        }


async def guard_statuses(redis: aioredis.Redis, lanes: Sequence[Lane]) -> dict[Lane, GuardStatus]:
    """The guards of these lanes, in one trip. Raises RedisError."""
    commands: list[tuple[str, ...]] = []
    for lane in lanes:
        commands += [("PTTL", lane.guard), ("MGET", lane.key("armed"), lane.key("fired"))]
    replies = await ask_all(redis, commands)
    found = {}
    for lane, left, kept in zip(lanes, replies[::2], replies[1::2], strict=True):
        left_ms = None if left == -2 else int(left)
        found[lane] = GuardStatus(left_ms, left_ms is None and kept[0] is not None, Fired.read(kept[1]))
    return found
