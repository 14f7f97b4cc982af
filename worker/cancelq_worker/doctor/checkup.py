"""One examination: which checks there are, each within its deadline, and the report of all.

The server is asked for a sign of life first; without one, nothing is asked of it that would only fail again. All other
checks run beside each other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from redis.exceptions import NoPermissionError, RedisError

from cancelq.contract import Lane
from cancelq_worker.doctor import (
    certificates,
    configuration,
    doors,
    durability,
    inbox,
    jobs,
    keeping,
    keys,
    lanes,
    limits,
    memory,
    scripts,
    server,
    spread,
)
from cancelq_worker.doctor.findings import About, Finding, Level, Report
from cancelq_worker.doctor.patient import Patient, Server, Untold, not_allowed
from cancelq_worker.doctor.seen import Seen, look
from cancelq_worker.exits import Exit
from cancelq_worker.redaction import redacted_text
from cancelq_worker.venues.registry import KINDS

#: How long one check may take, and all of them.
CHECK_S, FIND_S, ALL_S = 6.0, 3.0, 10.0
#: The order in which groups are shown.
GROUPS = (
    "settings", "server", "durability", "memory", "doors", "scripts", "lane", "inbox", "venue", "key", "limits", "jobs",
)  # fmt: skip

Run = Callable[[], Awaitable[list[Finding]]]


@dataclass(frozen=True, slots=True)
class Check:
    """One question. `about` names it where it comes to nothing else than that it could not be answered."""

    about: About
    run: Run


async def examine(p: Patient) -> Report:
    """Asks everything. Never raises, and takes no longer than some ten seconds."""
    begun = time.monotonic()
    first, alive = await _reached(p)
    checks = [*_aside(p, reached=bool(alive)), *(check for one in alive for check in _of_server(p, one))]
    if alive:
        checks.append(Check(About("server.sentinels", "server"), lambda: spread.sentinels(p)))
        checks += await _of_lanes(p)
    findings = [*first, *await _all(checks, ALL_S - (time.monotonic() - begun))]
    if not alive:
        findings.append(About("lane.served", "server").unknown("the lanes were not looked at, as their server is away"))
    findings.sort(key=lambda one: GROUPS.index(one.group))
    return Report(findings, round((time.monotonic() - begun) * 1000))


async def _reached(p: Patient) -> tuple[list[Finding], list[Server]]:
    """The servers that answer, and what was found on the way to them. Which scripts they know is asked at once: other
    checks load those that are missing."""
    about = About("server.reachable", "server")
    try:
        async with asyncio.timeout(CHECK_S):
            servers = await p.servers()
    except (RedisError, OSError, TimeoutError) as error:
        said = redacted_text(str(error))[:200] or "no answer in time"
        return [about.fail(f"{p.broker} cannot be found: {said}", server.REACH, Exit.UNREACHABLE)], []
    findings, alive = [], []
    for found in await asyncio.gather(
        *(_answered(_plain(p, s, "server.reachable", server.reachable)) for s in servers)
    ):
        findings += found
    for s in servers:
        if not any(one.subject == s.subject and one.level is Level.fail for one in findings):
            alive.append(s)
            findings += await _answered(_plain(p, s, "scripts.loaded", scripts.loaded))
    return findings, alive


async def _all(checks: Sequence[Check], within_s: float) -> list[Finding]:
    """The findings of all, in the order of the checks; of those that took too long, that they did."""
    tasks = [asyncio.ensure_future(_answered(check)) for check in checks]
    if tasks:
        await asyncio.wait(tasks, timeout=max(within_s, 0.5))
    findings: list[Finding] = []
    for check, task in zip(checks, tasks, strict=True):
        if task.done():
            findings += task.result()
        else:
            task.cancel()
            findings.append(check.about.unknown("it was not answered in time", "ask again"))
    return findings


async def _answered(check: Check) -> list[Finding]:
    """A check's findings; why there are none where it cannot be made."""
    try:
        async with asyncio.timeout(CHECK_S):
            return await check.run()
    except Untold as untold:
        return [check.about.unknown(str(untold), untold.remedy)]
    except NoPermissionError as error:
        refused = not_allowed(error)
        return [check.about.unknown(str(refused), refused.remedy)]
    except TimeoutError:
        return [check.about.unknown("it was not answered in time", "ask again")]
    except (RedisError, OSError) as error:
        said = redacted_text(str(error))[:200] or type(error).__name__
        return [check.about.unknown(f"the server did not answer it: {said}", "ask again")]
    except Exception as error:  # one that is broken must not hide what the others find
        said = redacted_text(f"{type(error).__name__}: {error}")[:200]
        return [check.about.unknown(f"the check itself failed: {said}", "this is a fault of cancelq")]


def _aside(p: Patient, *, reached: bool) -> list[Check]:
    """What needs no Redis of the lanes. `reached`: whether that answers."""
    checks = [Check(About("settings.valid", "settings"), lambda: configuration.accounts(p))]
    if reached or p.settings.rq_redis_url:
        checks.append(Check(About("jobs.server", "jobs"), lambda: jobs.state(p)))
    hosts: dict[tuple[str, str], list[Lane]] = {}
    for lane in p.configured:
        if p.offline:
            checks.append(_told(keys.not_asked(lane)))
        elif keys.without_key(p, lane):
            checks.append(_told(keys.no_key(lane)))
        else:
            hosts.setdefault((lane.venue, p.settings.account(lane).base_url), []).append(lane)
    checks += [_of_host(p, venue, url, some) for (venue, url), some in hosts.items()]
    return checks


def _of_host(p: Patient, venue: str, base_url: str, some: Sequence[Lane]) -> Check:
    return Check(About("venue.clock", venue), lambda: keys.of_host(p, base_url, some))


def _told(finding: Finding) -> Check:
    async def run() -> list[Finding]:
        return [finding]

    return Check(About(finding.check, finding.subject), run)


Ask = Callable[[Patient, Server], Awaitable[list[Finding]]]

OF_SERVERS: dict[str, Ask] = {
    "server.version": server.version,
    "server.role": server.role,
    "server.cluster": spread.kind,
    "server.slots": spread.cluster,
    "server.replicas": server.replicas,
    "server.clients": server.clients,
    "server.clock": server.clock,
    "durability.aof": durability.append_only,
    "durability.fsync": durability.fsync,
    "durability.writes": durability.writes,
    "durability.truncated": durability.truncated,
    "durability.disk": durability.disk,
    "memory.eviction": memory.eviction,
    "memory.headroom": memory.headroom,
    "memory.forecast": memory.forecast,
    "doors.tls": doors.encryption,
    "doors.certificate": certificates.server_certificate,
    "doors.default_user": doors.default_user,
    "doors.rights": doors.own_rights,
    "doors.users": doors.role_users,
    "scripts.runnable": scripts.runnable,
}


def _of_server(p: Patient, s: Server) -> list[Check]:
    return [_plain(p, s, name, ask) for name, ask in OF_SERVERS.items()]


def _plain(p: Patient, s: Server, name: str, ask: Ask) -> Check:
    return Check(About(name, s.subject), lambda: ask(p, s))


async def _of_lanes(p: Patient) -> list[Check]:
    """Of the lanes on the server and those that are configured. The two looks at them are shared by their checks."""
    found, checks = await _found(p)
    every = list(dict.fromkeys([*p.configured, *found, *p.chosen]))
    if not every and not checks:
        return [_told(About("lane.served", "server").ok("no lane yet: a worker creates its lanes when it starts"))]
    looking = asyncio.ensure_future(look(p.redis, every, p.settings))
    checks += [check for lane in every for check in _of_lane(p, lane, looking)]
    checks.append(Check(About("lane.suspended", "server"), lambda: _seen_all(p, looking)))
    for venue, lane in {lane.venue: lane for lane in reversed(p.configured)}.items():
        checks.append(_of_addresses(p, venue, lane))
    return checks


async def _found(p: Patient) -> tuple[Sequence[Lane], list[Check]]:
    """The lanes on the server; where it does not tell in time, a finding that says so. Then what is configured is
    looked at all the same."""
    about = About("lane.found", "server")
    try:
        async with asyncio.timeout(FIND_S):
            return await p.found(), []
    except Untold as untold:
        return [], [_told(about.unknown(f"which lanes there are: {untold}", untold.remedy))]
    except (RedisError, OSError, TimeoutError) as error:
        said = redacted_text(str(error))[:120] or "the server has too many keys to look through in time"
        return [], [_told(about.unknown(f"which lanes there are: {said}", "name them with --lane"))]


async def _seen_all(p: Patient, looking: asyncio.Future[Seen]) -> list[Finding]:
    return await lanes.suspended(p, await asyncio.shield(looking))


def _of_addresses(p: Patient, venue: str, lane: Lane) -> Check:
    return Check(About("limits.address", venue), lambda: limits.of_addresses(p, venue, p.settings.account(lane)))


def _of_lane(p: Patient, lane: Lane, looking: asyncio.Future[Seen]) -> list[Check]:
    name = str(lane)

    def seen(check: str, run: Callable[[Patient, Lane, Seen], Awaitable[list[Finding]]]) -> Check:
        async def ran() -> list[Finding]:
            return await run(p, lane, await asyncio.shield(looking))

        return Check(About(check, name), ran)

    def there(check: str, run: Callable[[Patient, Lane], Awaitable[list[Finding]]]) -> Check:
        """Of lanes that have streams."""

        async def ran() -> list[Finding]:
            return await run(p, lane) if lane in (await asyncio.shield(looking)).after else []

        return Check(About(check, name), ran)

    checks = [
        seen("lane.served", lanes.served),
        there("lane.configured", lanes.configured),
        there("lane.version", lanes.version),
        seen("lane.hold", lanes.holds),
        seen("lane.refusals", lanes.refusals),
        seen("lane.guard", lanes.guard),
        there("lane.unresolved", inbox.told_by_results),
        there("lane.archive", keeping.archive),
        there("inbox.blocked", inbox.blocked),
        seen("inbox.moving", inbox.moving),
        there("inbox.shortened", inbox.shortened),
        seen("inbox.backlog", inbox.backlog),
    ]
    if lane in p.settings.lanes and lane.venue in KINDS:
        checks.append(Check(About("limits.buckets", name), lambda: limits.in_force(p, lane)))
    return checks
