"""Each account's key, asked about itself by one read-only call, and the venues' clocks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from redis.exceptions import RedisError

from cancelq.contract import Lane
from cancelq_worker.clocks import RemoteClock, in_s
from cancelq_worker.doctor.findings import About, Finding
from cancelq_worker.doctor.patient import Patient, Untold
from cancelq_worker.exits import Exit
from cancelq_worker.http import Door, Exchange, NoAnswer, NotSent
from cancelq_worker.repeating import discreet
from cancelq_worker.snapshot import address_status
from cancelq_worker.venues.port import Answer, KeyRights, Reply, Request, Signed, Venue, Word
from cancelq_worker.venues.registry import KINDS, open_venue

CONNECT_S, TOTAL_S = 2.0, 2.5
KEYS_AT_ONCE = 8
REFUSED_S, REFUSED_MOST = 1.1, 2  # questions asked again as they were over a limit: Bitget answers one a second
SKEW_WARN_MS = 1_000
EXPIRES_SOON_MS = 14 * 86_400_000
NO_KEY = "unknown: no key here"
REACH = "see whether the venue is up, and whether this network reaches it (base_url)"
BANNED = "wait, and call it by nothing meanwhile; workers do so, and go on by themselves"
#: Its own right alone, and reading.
NARROW = "make a key that may read and trade spot, and nothing else"


async def of_host(p: Patient, base_url: str, lanes: Sequence[Lane]) -> list[Finding]:
    """Everything about the accounts of one host: its clock first, as it signs the calls that follow."""
    door = Door(base_url, verify=base_url.startswith("https:"))
    clock = RemoteClock(1_000)
    try:
        venue = open_venue(lanes[0].venue, p.settings.account(lanes[0]))
        if closed := await _closed(p, venue):
            return [closed, *(_unknown(lane, "the venue refuses this address") for lane in lanes)]
        findings = [await _clock(door, clock, venue)]
        if not clock.known:
            why = "the venue's clock is not known"
            return [*findings, *(_unknown(lane, why) for lane in lanes)]
        room = asyncio.Semaphore(KEYS_AT_ONCE)

        async def asked(lane: Lane) -> tuple[list[Finding], str | None]:
            async with room:
                return await _of_key(p, door, clock, lane)

        told = list(await asyncio.gather(*map(asked, lanes)))
        # A worker, or another key of the same account, was first.
        for n in [n for n, (_, account) in enumerate(told) if account is None][:REFUSED_MOST]:
            await asyncio.sleep(REFUSED_S)
            told[n] = await asked(lanes[n])
        accounts: dict[str, list[Lane]] = {}
        for lane, (found, account) in zip(lanes, told, strict=True):
            findings += found
            if account:
                accounts.setdefault(account, []).append(lane)
        return [*findings, *(judge_account(lane, sharing) for sharing in accounts.values() for lane in sharing)]
    finally:
        await door.close()


async def _closed(p: Patient, venue: Venue) -> Finding | None:
    """Whether workers were told that the venue refuses this address: then it is asked nothing, as calls into a ban
    make it longer."""
    buckets = [(p.settings.egress, bucket.name) for bucket in venue.address_buckets]
    try:
        found = await address_status(p.redis, buckets, await p.now_ms() * 1000)
    except (Untold, RedisError, OSError):  # other checks tell of it
        return None
    held = max(found, key=lambda one: one.held_ms)
    if not held.held_ms:
        return None
    told = f"the venue refuses this address ({p.settings.egress}) for {held.held_ms / 1000:.0f} s more: {held.held_why}"
    return About("venue.clock", venue.name).fail(told, BANNED, Exit.UNREACHABLE, held_ms=held.held_ms)


async def _clock(door: Door, clock: RemoteClock, venue: Venue) -> Finding:
    """Read twice: the first time a connection is made on the way, and the answer is late by that."""
    about = About("venue.clock", venue.name)
    try:
        for request in venue.time_requests:
            answer = await _learn(door, clock, venue, request)
            if clock.known:
                await _learn(door, clock, venue, request)
                break
            if (reply := discreet(venue.read_probe(answer), answer)).whole_address:
                told = f"the venue refuses this address: {reply.code} {reply.text}".rstrip()
                return about.fail(told, BANNED, Exit.UNREACHABLE)
    except (NotSent, NoAnswer) as error:
        return about.fail(f"the venue does not answer ({error})", REACH, Exit.UNREACHABLE)
    if not clock.known:
        return about.fail("the venue answers, and not with its time", REACH, Exit.UNREACHABLE)
    ahead_ms, doubt_ms = (clock.now_us() - time.time_ns() // 1000) / 1000, clock.uncertainty_us / 1000
    where = "ahead of" if ahead_ms >= 0 else "behind"
    told = f"its clock is {abs(ahead_ms):,.0f} ms {where} this machine's (± {doubt_ms:.0f} ms)"
    facts: dict[str, Any] = {"ahead_ms": round(ahead_ms, 1), "uncertainty_ms": round(doubt_ms, 1)}
    if abs(ahead_ms) - doubt_ms > SKEW_WARN_MS:
        remedy = (
            "keep this machine's clock with NTP; workers correct for it, whoever computes times for intents does not"
        )
        return about.warn(told, remedy, **facts)
    return about.ok(told, **facts)


async def _learn(door: Door, clock: RemoteClock, venue: Venue, request: Request) -> Answer:
    exchange = await door.call(Signed(request, {}), send_by_ns=in_s(CONNECT_S), total_s=TOTAL_S)
    told_ms = venue.read_time(exchange.answer)
    if told_ms is not None:
        clock.learn(exchange.sent_ns, exchange.answered_ns, told_ms * 1000)
    return exchange.answer


def without_key(p: Patient, lane: Lane) -> list[str]:
    """What a lane's account has not of what it needs to be asked about."""
    account = p.settings.account(lane)
    needed = {"api_key": account.api_key, "api_secret": account.api_secret}
    if KINDS[lane.venue].place.needs_passphrase:
        needed |= {"passphrase": account.passphrase} if account.passphrase else {}
        if not account.passphrase:
            return ["passphrase", *(name for name, one in needed.items() if not one.get_secret_value())]
    return [name for name, one in needed.items() if not one.get_secret_value()]


def no_key(lane: Lane) -> Finding:
    return _unknown(lane, "no key here", "run it where the worker runs, with its keys; workers try them by themselves")


def not_asked(lane: Lane) -> Finding:
    return _unknown(lane, "not asked (--offline)")


def _unknown(lane: Lane, why: str, remedy: str = "") -> Finding:
    return About("key.valid", str(lane)).unknown(f"whether the key works: {why}", remedy)


async def _of_key(p: Patient, door: Door, clock: RemoteClock, lane: Lane) -> tuple[list[Finding], str | None]:
    """What is found, and the account whose key it is, "" where that is not told, None where it was over a limit."""
    venue = open_venue(lane.venue, p.settings.account(lane))
    request = venue.rights_request()
    exchange = await _asked(door, venue, clock, request or venue.probe_request())
    if isinstance(exchange, str):
        told = f"the venue does not answer ({exchange})"
        return [About("key.valid", str(lane)).fail(told, REACH, Exit.UNREACHABLE)], ""
    if request is None:
        reply = venue.read_probe(exchange.answer)
        if reply.word is not Word.OPEN:
            return [judge_refusal(lane, discreet(reply, exchange.answer))], ""
        said: KeyRights | Reply = KeyRights(None, None)
    else:
        said = venue.read_rights(exchange.answer)
    if isinstance(said, Reply):
        return [judge_refusal(lane, discreet(said, exchange.answer))], None if said.word is Word.REFUSED else ""
    allowed = p.settings.account(lane).allow_withdraw_key
    works = About("key.valid", str(lane)).ok("the key works")
    return [works, *judge_rights(lane, said, _now_ms(), allowed=allowed)], said.account


async def _asked(door: Door, venue: Venue, clock: RemoteClock, request: Request) -> Exchange | str:
    """The answer, or why there is none."""
    signed = venue.sign(request, clock.now_us() // 1000)
    try:
        return await door.call(signed, send_by_ns=in_s(CONNECT_S), total_s=TOTAL_S)
    except (NotSent, NoAnswer) as error:
        return str(error) or type(error).__name__


def judge_refusal(lane: Lane, said: Reply) -> Finding:
    """What stands against the call that asks about the key."""
    about, line = About("key.valid", str(lane)), f"{said.code} {said.text}".strip()[:240]
    facts: dict[str, Any] = {"venue_code": said.code, "http_status": said.http_status}
    match said.word:
        case Word.ACCOUNT:
            remedy = "mend the key, or the account at the venue (right to trade spot, list of addresses, environment)"
            return about.fail(f"the venue refuses the key: {line}", remedy, Exit.KEY_REFUSED, **facts)
        case Word.CLOCK:
            return about.fail(
                f"the venue refuses our time although it was just asked for it: {line}",
                "see what is between this machine and the venue: answers may come out of a cache",
                Exit.KEY_REFUSED,
                **facts,
            )
        case Word.REFUSED:
            return about.unknown(f"over a limit of the venue just now: {line}", "ask again in a minute", **facts)
        case _:
            return about.unknown(f"the venue gives no clear answer: {line}", "ask again in a minute", **facts)


def judge_rights(lane: Lane, rights: KeyRights, now_ms: int, *, allowed: bool = False) -> list[Finding]:
    """`allowed`: the settings say that this key may be one that can withdraw."""
    return [
        _trade(lane, rights),
        _withdraw(lane, rights, allowed),
        _addresses(lane, rights),
        *_expiry(lane, rights, now_ms),
    ]


def _trade(lane: Lane, rights: KeyRights) -> Finding:
    about = About("key.trade", str(lane))
    facts: dict[str, Any] = {"rights": list(rights.names)}
    if rights.trade is None:
        return about.unknown("whether it may cancel is not told by the venue", **facts)
    if not rights.trade:
        told = f"it may not trade spot, so it cannot cancel (it may: {', '.join(rights.names) or 'nothing'})"
        return about.fail(told, f"{NARROW}; then: cancelq resume {lane}", Exit.KEY_REFUSED, **facts)
    return about.ok("it may trade spot", **facts)


def _withdraw(lane: Lane, rights: KeyRights, allowed: bool) -> Finding:
    about = About("key.withdraw", str(lane))
    facts: dict[str, Any] = {"rights": list(rights.names)}
    if rights.withdraw is None:
        return about.unknown(
            "whether it may withdraw is not told by the venue", "look at the venue's page of keys", **facts
        )
    if not rights.withdraw:
        return about.ok("it may not withdraw", **facts)
    if allowed:
        told = "it may withdraw, which the settings allow (allow_withdraw_key)"
        return about.warn(told, f"whoever gets it can take everything: {NARROW}", **facts)
    return about.fail(
        "it may withdraw: workers refuse it", f"{NARROW}; then: cancelq resume {lane}", Exit.KEY_REFUSED, **facts
    )


def _addresses(lane: Lane, rights: KeyRights) -> Finding:
    about = About("key.addresses", str(lane))
    if rights.addresses is None:
        return about.unknown("whether it is bound to addresses is not told by the venue")
    if not rights.addresses:
        return about.warn(
            "it is bound to no address: it works for whoever gets it, from anywhere",
            "list the workers' addresses at the venue",
            addresses=[],
        )
    return about.ok(f"bound to {', '.join(rights.addresses)}", addresses=list(rights.addresses))


def _expiry(lane: Lane, rights: KeyRights, now_ms: int) -> list[Finding]:
    about = About("key.expiry", str(lane))
    if rights.expires_ms is None:
        return []
    left_ms, facts = rights.expires_ms - now_ms, {"expires_ms": rights.expires_ms}
    if left_ms < EXPIRES_SOON_MS:
        days = max(0.0, left_ms / 86_400_000)
        return [about.warn(f"it ends in {days:.0f} days", "make a new key, or bind this one to addresses", **facts)]
    return [about.ok(f"it ends in {left_ms / 86_400_000:,.0f} days", **facts)]


def judge_account(lane: Lane, sharing: Sequence[Lane]) -> Finding:
    """Of an account whose keys these lanes have: a venue gives it one budget, and each lane keeps its own."""
    about = About("key.account", str(lane))
    others = [str(other) for other in sharing if other != lane]
    if not others:
        return about.ok("no other lane has a key of its account")
    told = (
        f"its account is also that of {', '.join(others)}: the venue counts their calls together, and each lane its own"
    )
    return about.fail(
        told, "keep one lane for an account (or use keys of sub-accounts)", Exit.CONFIGURATION, others=others
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
