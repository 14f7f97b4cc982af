"""A run in figures: what `make chaos` prints and keeps as JSON for docs/RELIABILITY.md."""

from __future__ import annotations

import platform
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from cancelq.contract import Status
from ops.chaos.world import Desk, World

#: The promises, by the word under which a page tells how often each was broken.
WORDS = {"1": "lost", "2": "doubled", "3": "invented", "4": "false", "5": "unrecorded", "6": "over_the_limit"}


def figures(world: World, seed: int, seconds: float) -> dict[str, Any]:
    """Everything that was counted and measured, plain enough for JSON."""
    broken = Counter(WORDS.get(one.promise, one.promise) for one in world.broken)
    return {
        "seed": seed,
        "seconds": seconds,
        "python": platform.python_version(),
        "workers": len(world.slots),
        "lanes": {str(desk.lane): _of_lane(world, desk) for desk in world.desks},
        "intents": sum(len(told.intents) for told in world.tolds.values()),
        "faults": dict(sorted(world.faults.items())),
        "faults_in_all": sum(world.faults.values()),
        "kills": world.faults["worker: kill -9"],
        "unclear_answers": sum(1 for call in world.simulator.calls().entries if call["fault"]),
        "broken": {**dict.fromkeys(WORDS.values(), 0), **broken},
        "broken_in_words": [str(one) for one in world.broken],
        "measured_ms": {what: spread(times) for what, times in sorted(world.measured_ms.items())},
    }


def _of_lane(world: World, desk: Desk) -> dict[str, Any]:
    told = world.tolds.get(desk.lane)
    if told is None:
        return {}
    finals = [events[-1] for events in told.finals.values()]
    return {
        "entries": len(told.entries),
        "intents": len(told.intents),
        "outcomes": dict(sorted(Counter(event.status.value for event in finals).items())),
        "unresolved": dict(Counter(event.detail for event in finals if event.status is Status.unresolved)),
        "calls": sum(1 for call in world.simulator.calls().entries if call["venue"] == desk.lane.venue),
        "refused_at_the_inbox": desk.refused_adds,
    }


def spread(times: Sequence[float]) -> dict[str, float]:
    """How often, and how long: median and most."""
    return {
        "times": len(times),
        "p50": round(statistics.median(times), 1),
        "most": round(max(times), 1),
    }


def in_words(found: dict[str, Any]) -> str:
    """The same for a person, the broken promises last."""
    lines = [f"  {count:6} {fault}" for fault, count in found["faults"].items()]
    for lane, part in found["lanes"].items():
        lines.append(f"{lane}: {part['intents']} intents, {part['calls']} calls; {part['outcomes']}")
        lines += [f"  {count} unresolved: {detail}" for detail, count in part["unresolved"].items()]
    for what, spent in found["measured_ms"].items():
        lines.append(f"{what}: p50 {spent['p50']} ms, most {spent['most']} ms of {spent['times']}")
    lines += found["broken_in_words"][:60]
    lines.append(
        f"seed {found['seed']}: {found['intents']} intents, {found['faults_in_all']} faults, {found['kills']} kills, "
        f"{found['unclear_answers']} unclear answers, {len(found['broken_in_words'])} broken promises"
    )
    return "\n".join(lines)
