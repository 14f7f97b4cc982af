"""The limits in force, and where each comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from cancelq.contract import Lane
from cancelq_worker.doctor.findings import About, Finding
from cancelq_worker.doctor.patient import Patient
from cancelq_worker.settings import Account
from cancelq_worker.trips import round_trip
from cancelq_worker.venues.port import Bucket, sized
from cancelq_worker.venues.registry import KINDS

DOCUMENTED, SETTING, TOLD = "documented", "account setting", "told by the venue"
SHARED = "documented, less a fifth for the desk's own programs"


@dataclass(frozen=True, slots=True)
class Limit:
    """One bucket's size as take uses it, and who says so; `used_by_workers`: what the last worker that opened the lane
    has used, None where none did."""

    bucket: Bucket
    units: int
    source: str
    used_by_workers: int | None = None

    def __str__(self) -> str:
        return f"{self.bucket.name} {self.units}{_window(self.bucket.window_us)}"

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
        window_ms = self.bucket.window_us // 1000
        return {"bucket": self.bucket.name, "units": self.units, "window_ms": window_ms, "source": self.source}


async def in_force(p: Patient, lane: Lane) -> list[Finding]:
    about, account = About("limits.buckets", str(lane)), p.settings.account(lane)
    buckets = sized(KINDS[lane.venue].buckets, account.limits)
    limits = await _read(p, lane, buckets)
    facts: dict[str, Any] = {
        "buckets": [one.as_object() for one in limits],
        "urgent_reserve": p.settings.urgent_reserve,
    }
    other = [one for one in limits if one.used_by_workers not in (None, one.units)]
    if other:
        differing = ", ".join(f"{one} here, {one.used_by_workers} there" for one in other)
        remedy = "give all workers of a lane the same settings; the last one that opened it counts"
        return [about.warn(f"workers use other limits than these settings: {differing}", remedy, **facts)]
    return [about.ok(f"{_by_source(limits)}; {_reserve(p.settings.urgent_reserve)}", **facts)]


async def _read(p: Patient, lane: Lane, buckets: Sequence[Bucket]) -> list[Limit]:
    names = [bucket.name for bucket in buckets]
    asked = [("HMGET", lane.key("limits"), *names), *(("HGET", lane.key(f"rtt:{name}"), "units") for name in names)]
    used, *told = await round_trip(p.redis, asked)
    for reply in (used, *told):
        if isinstance(reply, RedisError):
            raise reply
    return [limit_of(*one) for one in zip(buckets, told, used, strict=True)]


def limit_of(bucket: Bucket, told: bytes | None, used: bytes | None) -> Limit:
    """As take.lua reckons it: the venue's own word, unless the settings name a smaller size."""
    units, source = bucket.units, _source(bucket)
    if told and (int(told) < units or not bucket.fixed):
        units, source = int(told), TOLD
    # A worker writes its sizes when it opens the lane; what the venue told since is in force all the same.
    last = int(used) if used and source != TOLD else None
    return Limit(bucket, units, source, last)


async def of_addresses(p: Patient, venue: str, account: Account) -> list[Finding]:
    """What the venue counts per address."""
    about = About("limits.address", venue)
    buckets = sized(KINDS[venue].address_buckets, account.limits)
    limits = [Limit(bucket, bucket.units, _source(bucket)) for bucket in buckets]
    told = f"per address, {_by_source(limits)}; it is counted under the name {p.settings.egress} (egress)"
    return [about.ok(told, egress=p.settings.egress, buckets=[one.as_object() for one in limits])]


def _source(bucket: Bucket) -> str:
    if bucket.fixed:
        return SETTING
    return SHARED if bucket.shared else DOCUMENTED


def _by_source(limits: Sequence[Limit]) -> str:
    parts = []
    for source in (TOLD, SETTING, DOCUMENTED, SHARED):
        named = [str(one) for one in limits if one.source == source]
        if named:
            parts.append(f"{source}: {', '.join(named)}")
    return "; ".join(parts)


def _window(window_us: int) -> str:
    if not window_us:
        return " at a time"
    seconds = window_us / 1_000_000
    return "/s" if seconds == 1 else f"/{seconds:g} s"


def _reserve(units: int) -> str:
    return (
        f"urgent cancels keep {units} of each, at most a fifth (urgent_reserve)"
        if units
        else "none kept for urgent cancels"
    )
