"""A lane's two streams: an inbox that is blocked, shortened or flooded, and what its results tell of its producers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis.asyncio as aioredis

from cancelq.contract import Lane, Status
from cancelq_worker.doctor.findings import About, Finding
from cancelq_worker.doctor.patient import Patient, asked, server_ms
from cancelq_worker.doctor.seen import Seen
from cancelq_worker.snapshot import LAST_ID
from cancelq_worker.trips import command

AHEAD_MOST_MS = 60_000
STANDS_MS = 5_000
BACKLOG_MOST, WAIT_MOST_MS = 5_000, 60_000
DAY_MS = 86_400_000
#: Results that are looked through for what is rejected or unresolved.
READ, PAGE = 5_000, 1_000
REJECTED_LEAST, REJECTED_SHARE = 20, 0.5


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """XINFO of a stream. `added`: entries it ever had; `first`: the oldest one there is, "" if none."""

    length: int
    added: int
    last: str
    first: str

    @property
    def removed(self) -> int:
        return max(0, self.added - self.length)


async def stream_facts(redis: aioredis.Redis, key: str) -> StreamFacts:
    """Raises Untold, RedisError."""
    reply = await asked(command(redis, "XINFO", "STREAM", key))
    row = _pairs(reply)
    first = row.get("first-entry")
    return StreamFacts(
        int(row["length"]),
        int(row["entries-added"]),
        row["last-generated-id"].decode(),
        first[0].decode() if first else "",
    )


def _pairs(reply: Any) -> dict[str, Any]:
    if isinstance(reply, dict):
        return {key.decode() if isinstance(key, bytes) else str(key): value for key, value in reply.items()}
    return {reply[i].decode(): reply[i + 1] for i in range(0, len(reply), 2)}


async def blocked(p: Patient, lane: Lane) -> list[Finding]:
    """An explicit id far ahead blocks or bends every later XADD."""
    facts = await stream_facts(p.redis, lane.inbox)
    return [judge_last_id(lane, facts.last, await p.now_ms())]


def judge_last_id(lane: Lane, last: str, now_ms: int) -> Finding:
    about = About("inbox.blocked", str(lane))
    ms = last.partition("-")[0]
    if last == LAST_ID:
        return about.fail(
            "blocked: an entry with the largest id there is was added, and no other can follow: producers are refused",
            "begin a new inbox (docs/DOCTOR.md tells how), and find who writes explicit ids",
            last_id=last,
        )
    if int(ms) > now_ms + AHEAD_MOST_MS:
        return about.fail(
            f"its last id is {_span(int(ms) - now_ms)} in the future: every later entry gets a time that is not true",
            "begin a new inbox (docs/DOCTOR.md tells how), and find who writes explicit ids",
            last_id=last,
        )
    return about.ok("it takes entries", last_id=last)


async def moving(p: Patient, lane: Lane, seen: Seen) -> list[Finding]:
    about, state = About("inbox.moving", str(lane)), seen.after.get(lane)
    if state is None:
        return []
    age_ms = state.inbox_age_ms or 0
    more = "at least " if state.not_admitted_more else ""
    facts: dict[str, Any] = {
        "not_admitted": state.not_admitted,
        "oldest_ms": state.inbox_age_ms,
        "cursor": seen.cursors[lane][1],
    }
    if state.not_admitted and age_ms > STANDS_MS and seen.stands(lane):
        told = f"{more}{state.not_admitted} entries wait, the oldest for {_span(age_ms)}, and none is admitted"
        remedy = "start a worker that has this account: cancelq worker"
        if state.workers:
            remedy = "see the workers' log: memory of the server may be full, or they do not have this account"
        return [about.fail(told, remedy, **facts)]
    return [
        about.ok(
            f"{state.not_admitted} entries wait for admission" if state.not_admitted else "all is admitted", **facts
        )
    ]


async def backlog(p: Patient, lane: Lane, seen: Seen) -> list[Finding]:
    """More than the venue's limits let out."""
    about, state = About("inbox.backlog", str(lane)), seen.after.get(lane)
    if state is None:
        return []
    waits, oldest_ms = state.queued + state.not_admitted, state.oldest_age_ms or 0
    told = f"{waits:,} cancels wait" + (
        f", the oldest for {_span(oldest_ms)}" if state.oldest_age_ms is not None else ""
    )
    facts: dict[str, Any] = {
        "waiting": waits,
        "oldest_ms": state.oldest_age_ms,
        "confirming": state.confirming,
        "timed": state.timed,
    }
    flooded = waits > BACKLOG_MOST or oldest_ms > WAIT_MOST_MS
    if flooded and not state.paused:
        remedy = "sweep with scope symbol or account instead of order by order, or ask the venue for a larger limit"
        return [about.warn(told, remedy, **facts)]
    return [about.ok(told if waits else "no cancel waits", **facts)]


async def shortened(p: Patient, lane: Lane) -> list[Finding]:
    """Workers trim by age, and never past the cursor: the entry it stands at is always there. Whatever else is missing
    was taken by somebody else."""
    about = About("inbox.shortened", str(lane))
    facts = await stream_facts(p.redis, lane.inbox)
    cursor = await _cursor(p, lane)
    there = await asked(command(p.redis, "XRANGE", lane.inbox, cursor, cursor, "COUNT", 1)) if cursor != "0-0" else []
    shown: dict[str, Any] = {"removed": facts.removed, "first": facts.first, "cursor": cursor}
    remedy = "no producer may use XADD … MAXLEN or MINID, XTRIM or XDEL on an inbox (give it the role producer)"
    gone = not there if cursor != "0-0" else facts.removed > 0
    if gone and facts.added:
        return [
            about.fail(
                f"somebody else has removed entries past the cursor ({facts.removed:,} were ever removed): those that "
                "were not admitted are lost",
                f"{remedy}; ask again for what has no result: cancelq audit {lane}",
                **shown,
            )
        ]
    if facts.removed and await _is_young(p, lane):
        return [
            about.warn(
                f"{facts.removed:,} entries were removed by somebody else, though none was old enough for that: what "
                "was asked can no longer be proven",
                remedy,
                **shown,
            )
        ]
    return [about.ok("nobody else has removed entries", **shown)]


async def _cursor(p: Patient, lane: Lane) -> str:
    value = await asked(command(p.redis, "GET", lane.key("cursor")))
    return value.decode() if value else "0-0"


async def _is_young(p: Patient, lane: Lane) -> bool:
    """Whether no worker can have trimmed anything yet: the lane's first result is still there, and not old enough."""
    facts = await stream_facts(p.redis, lane.results)
    if facts.removed or not facts.first:
        return False
    age_ms = await p.now_ms() - int(facts.first.partition("-")[0])
    return age_ms < p.settings.results_keep_days * DAY_MS // 2


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What the newest results tell, `read` of them: how many intents ended, why those that were rejected were, and
    which are unresolved and nothing was done about. `whole`: they reach a day back."""

    read: int
    whole: bool
    ended: int
    rejected: Counter[str]
    unresolved: tuple[str, ...]


async def outcomes(redis: aioredis.Redis, lane: Lane) -> Outcomes:
    """The last day of a lane's results, newest first, at most `READ` of them. Raises Untold, RedisError."""
    oldest = str(await server_ms(redis) - DAY_MS)
    end, read, whole, ended = "+", 0, False, 0
    rejected: Counter[str] = Counter()
    settled_since: set[str] = set()
    unresolved: list[str] = []
    while read < READ and not whole:
        page = await asked(command(redis, "XREVRANGE", lane.results, end, oldest, "COUNT", PAGE))
        for _, flat in page:
            event = _event(flat)
            _note(event, rejected, settled_since, unresolved)
            ended += event.get("final") == "1"
        read, whole = read + len(page), len(page) < PAGE
        if page:
            end = f"({page[-1][0].decode()}"
    return Outcomes(read, whole, ended, rejected, tuple(unresolved))


def _note(event: Mapping[str, str], rejected: Counter[str], settled: set[str], unresolved: list[str]) -> None:
    id_, status = event.get("id", ""), event.get("status", "")
    if origin := event.get("origin"):
        settled.add(origin)
    if status == Status.resolved:
        settled.add(id_)
    elif status == Status.rejected and event.get("final") == "1":
        rejected[event.get("detail", "")[:120]] += 1
    elif status == Status.unresolved and event.get("final") == "1" and id_ not in settled:
        unresolved.append(id_)


def _event(flat: Any) -> dict[str, str]:
    if isinstance(flat, dict):
        flat = [word for pair in flat.items() for word in pair]
    words = [word.decode(errors="replace") for word in flat or ()]
    return dict(zip(words[::2], words[1::2], strict=False))


async def told_by_results(p: Patient, lane: Lane) -> list[Finding]:
    found = await outcomes(p.redis, lane)
    return [judge_rejected(lane, found), judge_unresolved(lane, found)]


def judge_rejected(lane: Lane, found: Outcomes) -> Finding:
    about, count = About("inbox.rejected", str(lane)), found.rejected.total()
    facts: dict[str, Any] = {"ended": found.ended, "rejected": count}
    if count >= REJECTED_LEAST and count >= REJECTED_SHARE * found.ended:
        why, _ = found.rejected.most_common(1)[0]
        return about.warn(
            f"flooded with entries that can never work: {count:,} of the last {found.ended:,} were rejected, most "
            f"for: {why}",
            f"mend the producer that sends them: cancelq results {lane} --final",
            **facts,
        )
    line = (
        f"{count:,} of the last {found.ended:,} outcomes are `rejected`"
        if found.ended
        else "no outcome in the last day"
    )
    return about.ok(line, **facts)


def judge_unresolved(lane: Lane, found: Outcomes) -> Finding:
    about, span = About("lane.unresolved", str(lane)), _looked(found)
    facts: dict[str, Any] = {"unresolved": len(found.unresolved), "looked_at": found.read}
    if found.unresolved:
        ids = ", ".join(found.unresolved[:3]) + (", …" if len(found.unresolved) > 3 else "")
        return about.warn(
            f"{len(found.unresolved)} unresolved {span}: a person must look ({ids})",
            f"cancelq trace {found.unresolved[0]}; once it is clear: cancelq redrive {lane}",
            **facts,
        )
    return about.ok(f"nothing unresolved {span}", **facts)


def _looked(found: Outcomes) -> str:
    return "in the last day" if found.whole else f"among the last {found.read:,} events"


def _span(ms: int) -> str:
    for size, unit in ((86_400_000, "days"), (3_600_000, "hours"), (60_000, "minutes")):
        if ms >= 2 * size:
            return f"{ms / size:,.0f} {unit}"
    return f"{ms / 1000:.1f} s"
