"""What several servers must be together: sentinels that agree and can decide, a cluster that holds every slot."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import redis
from redis.exceptions import RedisError, ResponseError

from cancelq.broker import Broker, Place
from cancelq_worker.doctor.findings import About, Finding
from cancelq_worker.doctor.patient import Patient, Server, asked
from cancelq_worker.redaction import redacted_text
from cancelq_worker.trips import command

SENTINELS_LEAST = 3
SLOTS = 16_384


async def kind(p: Patient, s: Server) -> list[Finding]:
    """Whether the URL fits the server: one that is a node of a cluster must be named as one."""
    about, info = About("server.cluster", s.subject), await s.info()
    clustered = bool(int(info.get("cluster_enabled", 0)))
    if p.broker.kind != "cluster":
        if not clustered:
            return []
        remedy = "name the cluster: redis+cluster://host:port,host:port"
        return [about.fail("it is a node of a cluster: lanes on the other nodes are out of reach (MOVED)", remedy)]
    if not int(info.get("connected_slaves", 0)):
        remedy = "give each node of the cluster a replica"
        return [about.warn("no replica: if this node is lost, its lanes stand still", remedy)]
    return [about.ok("it has a replica")]


async def cluster(p: Patient, s: Server) -> list[Finding]:
    """How one node sees the whole."""
    about = About("server.slots", s.subject)
    if p.broker.kind != "cluster":
        return []
    reply = await asked(command(s.redis, "CLUSTER", "INFO"))
    text = reply.decode() if isinstance(reply, bytes) else reply
    row = text if isinstance(text, dict) else dict(line.split(":", 1) for line in text.split() if ":" in line)
    state, slots = str(row.get("cluster_state")), int(row.get("cluster_slots_ok", 0))
    if state != "ok" or slots < SLOTS:
        told = (
            f"this node sees the cluster as {state}, with {slots:,} of {SLOTS:,} slots well: lanes on the others fail"
        )
        return [about.fail(told, "bring the missing nodes back: redis-cli --cluster check", state=state, slots=slots)]
    return [about.ok(f"the cluster is well, and all {SLOTS:,} slots are held", state=state, slots=slots)]


@dataclass(frozen=True, slots=True)
class Sentinel:
    """What one of them says: where the master is, whether they could agree on another one; or why it says nothing."""

    place: Place
    master: Place | None = None
    quorum: str = ""
    trouble: str = ""


async def sentinels(p: Patient) -> list[Finding]:
    about = About("server.sentinels", "server")
    if p.broker.kind != "sentinel":
        return []
    said = await asyncio.gather(*(asyncio.to_thread(_ask, p.broker, place) for place in p.broker.seeds))
    return judge_sentinels(about, said)


def judge_sentinels(about: About, said: Sequence[Sentinel]) -> list[Finding]:
    findings = [
        about.warn(f"the sentinel {one.place} does not answer: {one.trouble}", "bring it back, or name those there are")
        for one in said
        if one.trouble
    ]
    masters = {one.master for one in said if one.master}
    if len(masters) > 1:
        told = f"the sentinels name different masters: {', '.join(sorted(str(master) for master in masters))}"
        findings.append(about.fail(told, "ask again: a failover may be under way; else look at the links between them"))
    lost = next((one.quorum for one in said if one.quorum and not one.quorum.startswith("OK")), "")
    if lost:
        remedy = "bring the missing sentinels back: nobody takes over if the master is lost now"
        findings.append(about.fail(f"the sentinels cannot decide on a failover: {lost[:160]}", remedy))
    if len(said) < SENTINELS_LEAST:
        told = f"redis_url names {len(said)} sentinels: if they are out of reach, the master cannot be found"
        findings.append(about.warn(told, "name all of them, and run three or more"))
    return findings or [about.ok(f"{len(said)} sentinels answer, agree on the master and could replace it")]


def _ask(broker: Broker, place: Place) -> Sentinel:
    pool = redis.ConnectionPool(**broker.asking(place))
    try:
        with redis.Redis(connection_pool=pool) as one:
            told = one.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", broker.master)
            master = Place(told[0].decode(), int(told[1])) if told else None
            return Sentinel(place, master, _quorum(one, broker.master))
    except (RedisError, OSError) as error:
        return Sentinel(place, trouble=redacted_text(str(error))[:120] or type(error).__name__)
    finally:
        pool.disconnect()


def _quorum(one: redis.Redis, master: str) -> str:
    try:
        said = one.execute_command("SENTINEL", "CKQUORUM", master)  # type: ignore[no-untyped-call]
    except ResponseError as error:
        return str(error)
    return said.decode() if isinstance(said, bytes) else str(said)
