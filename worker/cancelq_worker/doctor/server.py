"""The server itself: whether it answers, which it is, whether it takes writes, whether its replicas follow."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from cancelq_worker.doctor.findings import About, Finding
from cancelq_worker.doctor.patient import Patient, Server, Untold
from cancelq_worker.exits import Exit
from cancelq_worker.redaction import redacted_text
from cancelq_worker.settings import without_credentials

FLOORS = {"Redis": (7, 0), "Valkey": (7, 2)}
#: Replicas that are further behind than this lose as much with the master.
LAG_MOST_S, BEHIND_MOST = 10, 1_048_576
CLIENTS_MOST = 0.8
CLOCK_READINGS = 5
CLOCK_WARN_MS, CLOCK_FAIL_MS = 1_000, 3_600_000
REACH = "check that the server runs and that redis_url (CANCELQ_REDIS_URL) names it"
RIGHTS = "put the user and password into redis_url (CANCELQ_REDIS_URL)"


async def reachable(p: Patient, s: Server) -> list[Finding]:
    """Without this nothing else can be asked of it."""
    about, place = About("server.reachable", s.subject), without_credentials(s.url)
    begun = time.perf_counter()
    try:
        await s.redis.ping()
    except BusyLoadingError:
        return [about.fail(f"{place} is still loading its data", "wait until it has", Exit.UNREACHABLE)]
    except NoPermissionError:
        pass  # it answered
    except (AuthenticationError, AuthorizationError) as error:
        said = redacted_text(str(error))[:160]
        return [about.fail(f"{place} refuses this user: {said}", RIGHTS, Exit.CONFIGURATION)]
    except ResponseError as error:
        # So it answers a ping when it refuses writes; the checks of durability tell the reason.
        return [about.ok(f"{place} answers, with a complaint: {redacted_text(str(error))[:120]}")]
    except (RedisError, OSError, TimeoutError) as error:
        said = redacted_text(str(error))[:200] or type(error).__name__
        return [about.fail(f"{place} does not answer: {said}", REACH, Exit.UNREACHABLE)]
    took_ms = (time.perf_counter() - begun) * 1000
    return [about.ok(f"{place} answers in {took_ms:.1f} ms", round_trip_ms=round(took_ms, 3))]


async def version(p: Patient, s: Server) -> list[Finding]:
    return [judge_version(await s.info(), s.subject)]


def judge_version(info: Mapping[str, Any], subject: str = "server") -> Finding:
    about = About("server.version", subject)
    name = "Valkey" if info.get("valkey_version") else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version") or "?")
    numbers = tuple(int(part) for part in re.findall(r"[0-9]+", version)[:2])
    floor = FLOORS[name]
    if len(numbers) < 2:
        return about.unknown(f"the server tells no version ({version})")
    if numbers < floor:
        return about.fail(
            f"{name} {version} is too old: its scripts cannot run when memory is full",
            "use Redis 7.0 or newer, or Valkey 7.2 or newer",
            version=version,
        )
    return about.ok(f"{name} {version}", name=name, version=version)


async def role(p: Patient, s: Server) -> list[Finding]:
    info, about = await s.info(), About("server.role", s.subject)
    if info.get("role") != "slave":
        return [about.ok("it is a master, and takes writes")]
    master = f"{info.get('master_host', '?')}:{info.get('master_port', '?')}"
    link = "" if info.get("master_link_status") == "up" else ", and the link to it is down"
    return [
        about.fail(
            f"it is a replica of {master}{link}: it refuses every write (READONLY)",
            f"name the master {master} in redis_url, or all sentinels (redis+sentinel://)",
            master=master,
        )
    ]


async def replicas(p: Patient, s: Server) -> list[Finding]:
    """Those that are attached, and whether a write waits for one of them."""
    info = await s.info()
    findings = [
        _of_replica(int(info.get("master_repl_offset", 0)), info[f"slave{n}"], s.subject)
        for n in range(_attached(info))
    ]
    return [*findings, await _required(p, s, info)]


def _attached(info: Mapping[str, Any]) -> int:
    count = int(info.get("connected_slaves", 0))
    return next((n for n in range(count) if f"slave{n}" not in info), count)


def _of_replica(offset: int, row: Mapping[str, Any], subject: str = "server") -> Finding:
    name = f"{row.get('ip', '?')}:{row.get('port', '?')}"
    about = About("server.replica", subject)
    state, lag_s = row.get("state"), int(row.get("lag", 0))
    behind = max(0, offset - int(row.get("offset", offset)))
    facts: dict[str, Any] = {"replica": name, "state": state, "lag_s": lag_s, "behind_bytes": behind}
    if state != "online":
        return about.warn(f"replica {name} is {state}, it cannot take over", "let it finish its first copy", **facts)
    if lag_s > LAG_MOST_S or behind > BEHIND_MOST:
        return about.warn(
            f"replica {name} lags: {behind:,} bytes behind, last heard of {lag_s} s ago",
            "look at that machine and at the link to it; a failover now would lose as much",
            **facts,
        )
    return about.ok(f"replica {name} follows ({behind:,} bytes behind)", **facts)


async def _required(p: Patient, s: Server, info: Mapping[str, Any]) -> Finding:
    about, count = About("server.replicas", s.subject), int(info.get("connected_slaves", 0))
    try:
        wanted = int((await s.config()).get("min-replicas-to-write", "0"))
    except Untold as untold:
        # INFO tells of good replicas only where some are required.
        if "min_slaves_good_slaves" not in info and not count:
            return about.ok("no replica is attached or required")
        return about.unknown(f"{count} replicas; whether writes wait for one: {untold}", untold.remedy)
    good = int(info.get("min_slaves_good_slaves", count))
    if good < p.settings.durable_replicas:
        return about.fail(
            f"workers send nothing: {p.settings.durable_replicas} replicas must have each take (durable_replicas), "
            f"{good} are there",
            "bring the replicas back",
            required=p.settings.durable_replicas,
            good=good,
        )
    if good < wanted:
        return about.fail(
            f"writes are refused: {wanted} replicas are required (min-replicas-to-write), {good} are there",
            "bring the replicas back",
            required=wanted,
            good=good,
        )
    if count and not wanted:
        return about.warn(
            f"{count} replicas, but none is required for a write: an isolated master would go on alone",
            "set min-replicas-to-write 1",
            required=0,
            good=good,
        )
    return about.ok(f"{count} replicas, {wanted} required" if count else "no replica is attached or required")


async def clients(p: Patient, s: Server) -> list[Finding]:
    return [judge_clients(await s.info(), s.subject)]


def judge_clients(info: Mapping[str, Any], subject: str = "server") -> Finding:
    about = About("server.clients", subject)
    count, most = int(info.get("connected_clients", 0)), int(info.get("maxclients", 0))
    told = f"{count:,} clients of {most:,}"
    facts: dict[str, Any] = {"clients": count, "most": most or None}
    if most and count > CLIENTS_MOST * most:
        remedy = "raise maxclients, or find who keeps connections open"
        return about.warn(f"{told}: soon nobody can connect", remedy, **facts)
    return about.ok(told, **facts)


async def clock(p: Patient, s: Server) -> list[Finding]:
    """The server's clock beside this machine's: workers live by the server's."""
    about = About("server.clock", s.subject)
    ahead_ms, doubt_ms = min([await _clock_reading(s) for _ in range(CLOCK_READINGS)], key=lambda one: one[1])
    facts: dict[str, Any] = {"ahead_ms": round(ahead_ms, 1), "uncertainty_ms": round(doubt_ms, 1)}
    told = f"the server's clock is {_apart(ahead_ms)} this machine's (± {doubt_ms:.0f} ms)"
    off_ms = abs(ahead_ms) - doubt_ms
    if off_ms > CLOCK_FAIL_MS:
        remedy = "set both clocks (NTP); until then nothing old is dropped from the streams"
        return [about.fail(told, remedy, **facts)]
    if off_ms > CLOCK_WARN_MS:
        return [about.warn(told, "keep both machines' clocks with NTP: times in events are the server's", **facts)]
    return [about.ok(told, **facts)]


async def _clock_reading(s: Server) -> tuple[float, float]:
    """By how much the server's clock is ahead, and by how much that may be wrong, in ms."""
    before = time.time()
    seconds, micros = await s.redis.time()
    after = time.time()
    return (seconds + micros / 1e6 - (before + after) / 2) * 1000, (after - before) / 2 * 1000


def _apart(ahead_ms: float) -> str:
    size = f"{abs(ahead_ms):.0f} ms" if abs(ahead_ms) < 10_000 else f"{abs(ahead_ms) / 1000:,.0f} s"
    return f"{size} {'ahead of' if ahead_ms >= 0 else 'behind'}"
