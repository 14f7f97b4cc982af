"""The lanes: whether somebody serves them, what holds them, what a person must look at."""

from __future__ import annotations

from typing import Any

from cancelq.contract import Lane
from cancelq_worker.data_version import DATA_VERSION
from cancelq_worker.doctor.findings import About, Finding
from cancelq_worker.doctor.patient import Patient, asked
from cancelq_worker.doctor.seen import Seen
from cancelq_worker.exits import Exit
from cancelq_worker.snapshot import ENDLESS
from cancelq_worker.trips import command

START = "start a worker that has this account: cancelq worker"
#: Those who serve a lane touch it at least once a minute, when they trim it.
UNTOUCHED_MS = 180_000


async def served(p: Patient, lane: Lane, seen: Seen) -> list[Finding]:
    """Whether there is an inbox, and a live worker that looks at it."""
    about, state = About("lane.served", str(lane)), seen.after.get(lane)
    if why := seen.broken.get(lane):
        remedy = f"find the key of cancelq:{{{lane}}}:… that is of another type (TYPE), and rename or delete it"
        return [about.fail(f"the server refuses to look at it: {why[:150]}", remedy)]
    if state is None:
        return [about.fail("no worker has ever served it here: producers are told that there is no such lane", START)]
    if not state.workers:
        waits = state.queued + state.not_admitted
        line = "no live worker" + (f", and {waits} cancel{'s' * (waits > 1)} wait" if waits else "")
        return [about.fail(line, START, waiting=waits)]
    if state.unattended:
        return [about.fail("cancels wait, and no live worker has this account", START, workers=state.workers)]
    if state.untouched_ms is None or state.untouched_ms > UNTOUCHED_MS:
        since = "ever" if state.untouched_ms is None else f"for {state.untouched_ms // 60_000} minutes"
        return [about.fail(f"workers are alive, and none has touched it {since}: they lack this account", START)]
    return [about.ok(f"watched by {', '.join(state.workers)}", workers=state.workers)]


async def configured(p: Patient, lane: Lane) -> list[Finding]:
    """A lane of the server that these settings do not know, where they know others."""
    about = About("lane.configured", str(lane))
    if lane in p.settings.lanes or not p.settings.lanes:
        return []
    return [
        about.warn(
            "it has an inbox here, and is not configured: if nobody else serves it, its cancels wait for ever",
            f"add [accounts.{lane.venue}.{lane.account}], or see that another machine serves it: cancelq status",
        )
    ]


async def version(p: Patient, lane: Lane) -> list[Finding]:
    """Whether this program reads the lane's data: an older one must leave them alone."""
    about = About("lane.version", str(lane))
    kept = await asked(command(p.redis, "GET", lane.key("version")))
    found = int(kept) if kept else 1
    facts: dict[str, Any] = {"version": found, "read_up_to": DATA_VERSION}
    if found > DATA_VERSION:
        told = f"its data are of version {found}, and this program reads up to {DATA_VERSION}: it is too old"
        return [about.fail(told, "use the version of cancelq that the workers have", **facts)]
    return [about.ok(f"its data are of version {found}", **facts)]


async def holds(p: Patient, lane: Lane, seen: Seen) -> list[Finding]:
    about, state = About("lane.hold", str(lane)), seen.after.get(lane)
    if state is None:
        return []
    if not state.holds:
        return [about.ok("nothing holds it")]
    return [_of_hold(about, lane, *hold) for hold in state.holds]


def _of_hold(about: About, lane: Lane, scope: str, reason: str, until: str) -> Finding:
    what = "the lane" if scope == "*" else scope
    line = f"{what} is held ({reason}), {until}"
    facts: dict[str, Any] = {"scope": scope, "reason": reason, "until": until}
    match reason:
        case "auth":
            remedy = f"mend the key or the account at the venue, then: cancelq resume {lane}"
            return about.fail(line, remedy, Exit.KEY_REFUSED, **facts)
        case "paused":
            return about.warn(line, f"normal cancels wait until: cancelq resume {lane}", **facts)
        case "rate":
            return about.warn(line, "see whether somebody else uses this key or this address", **facts)
        case "unreachable":
            return about.warn(line, "see whether the venue is up, and whether this network reaches it", **facts)
        case _:
            endless = until.startswith(ENDLESS)
            return about.warn(line, f"cancelq resume {lane}" if endless else "it ends by itself", **facts)


async def refusals(p: Patient, lane: Lane, seen: Seen) -> list[Finding]:
    """Calls that the venue refused for its limit in the last hour."""
    about, state = About("lane.refusals", str(lane)), seen.after.get(lane)
    if state is None:
        return []
    lately = {name: one for name, one in state.refusals.items() if one.lately}
    if not lately:
        return [about.ok("the venue has refused no call for its limit in the last hour")]
    line = ", ".join(f"{name} ({one.count} ever, {one.age_ms // 1000} s ago)" for name, one in lately.items())
    remedy = "give this key to nobody else, and each address its own `egress` name; or lower the limit in the settings"
    return [about.warn(f"over the venue's limit in the last hour: {line}", remedy, buckets=sorted(lately))]


async def guard(p: Patient, lane: Lane, seen: Seen) -> list[Finding]:
    about, state = About("lane.guard", str(lane)), seen.guards.get(lane)
    if state is None:
        return []
    if state.trouble:
        remedy = f"see that workers serve it, and empty it yourself: cancelq kill {lane}"
        return [about.fail(state.text, remedy, **state.as_object())]
    if state.left_ms == -1:
        remedy = f"keep it with a time to live: cancelq guard {lane} --ttl 10s"
        return [about.warn(state.text, remedy, **state.as_object())]
    return [about.ok(state.text or "no guard is armed", **state.as_object())]


async def suspended(p: Patient, seen: Seen) -> list[Finding]:
    about = About("lane.suspended", "server")
    if seen.suspended:
        return [about.warn("`rq suspend` pauses every lane", "rq resume", suspended=True)]
    return []
