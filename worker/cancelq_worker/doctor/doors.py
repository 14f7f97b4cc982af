"""Who may reach the server and what they may do there: TLS, the default user, the users of the roles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio as aioredis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from cancelq.contract import Lane
from cancelq_worker.doctor.findings import About, Finding
from cancelq_worker.doctor.patient import Patient, Server, Untold, asked, host_of
from cancelq_worker.scripts import SCRIPTS
from cancelq_worker.trips import command, connect, round_trip

ROLES = "give each program the user of its role: ops/redis/users.sh writes them"
#: No user of a program may do any of this.
TOO_MUCH: tuple[tuple[Any, ...], ...] = (
    ("FLUSHALL",), ("CONFIG", "SET", "maxmemory", "0"), ("SHUTDOWN",), ("ACL", "SETUSER", "x"), ("DEBUG", "SLEEP", "0"),
)  # fmt: skip


async def encryption(p: Patient, s: Server) -> list[Finding]:
    about, url = About("doors.tls", s.subject), s.url
    if url.startswith(("rediss://", "rediss+")):
        return [about.ok("the connection is encrypted (TLS)")]
    if await s.here():
        return [about.ok("not encrypted, and it does not leave this machine")]
    return [
        about.warn(
            f"the connection to {host_of(url)} is not encrypted: whoever is on the way can read and change everything",
            "use rediss:// (docs/SECURITY.md)",
        )
    ]


async def default_user(p: Patient, s: Server) -> list[Finding]:
    """Whether somebody without a password gets in. Tried, as no other question needs so few rights."""
    about, url = About("doors.default_user", s.subject), s.url
    stranger = connect(without_user(url), max_connections=1)
    try:
        await stranger.ping()
    except NoPermissionError:
        return [about.ok("who gives no password may do next to nothing")]
    except (AuthenticationError, ResponseError):
        return [about.ok("who gives no password is not let in")]
    except (RedisError, OSError) as error:
        return [about.unknown(f"whether a password is needed: {type(error).__name__}")]
    finally:
        await stranger.aclose()
    if await s.here():
        return [about.ok("no password is needed, by anybody on this machine")]
    return [
        about.warn(
            "no password is needed: whoever reaches the port can cancel, read and erase everything",
            f"turn the default user off; {ROLES}",
        )
    ]


def without_user(url: str) -> str:
    """The same server, without user and password."""
    bare, _, query = re.sub(r"//[^@/]*@", "//", url).partition("?")
    kept = [part for part in query.split("&") if part and not part.startswith(("username=", "password="))]
    return bare + ("?" + "&".join(kept) if kept else "")


async def own_rights(p: Patient, s: Server) -> list[Finding]:
    """Whether the user that this command runs as may do what no program needs."""
    about = About("doors.rights", s.subject)
    user = (await asked(command(s.redis, "ACL", "WHOAMI"))).decode(errors="replace")
    refused = await _tried(s.redis, user, TOO_MUCH)
    may = [_shown(words) for words, why in zip(TOO_MUCH, refused, strict=True) if not why]
    if not may:
        return [about.ok(f"user {user} may do nothing that no program needs", user=user)]
    line = f"user {user} may {', '.join(may)}"
    if user == "default" and await s.here():
        return [about.ok(f"{line}; the server is this machine's own", user=user, may=may)]
    if any(p.settings.account(lane).api_key.get_secret_value() for lane in p.configured):
        return [about.warn(f"{line}, and it is given to programs with keys", ROLES, user=user, may=may)]
    return [about.ok(f"{line}: the server's keeper; no program should run as it", user=user, may=may)]


@dataclass(frozen=True, slots=True)
class _Role:
    """What a user of a role must be able to do, and must not."""

    needs: tuple[tuple[Any, ...], ...]
    never: tuple[tuple[Any, ...], ...]


def roles_of(lane: Lane) -> dict[str, _Role]:
    """The roles by the names of their users, for one lane."""
    clock, inbox, results, hold = lane.key("clock"), lane.inbox, lane.results, lane.key("hold")
    add, add_result = ("XADD", inbox, "*", "v", "1"), ("XADD", results, "*", "v", "1")
    read_inbox, read_results = ("XRANGE", inbox, "-", "+"), ("XRANGE", results, "-", "+")
    gone = (("XTRIM", inbox, "MAXLEN", "0"), ("DEL", inbox), ("DEL", results))
    look = ("EVALSHA_RO", SCRIPTS.sha["look"], 1, clock)
    take = ("EVALSHA", SCRIPTS.sha["take"], 1, clock)
    return {
        "worker": _Role(
            (take, look, ("SCRIPT", "LOAD", "x"), ("XREAD", "STREAMS", inbox, "0"), add_result,
             ("ZADD", "cancelq:workers", "1", "x"), ("HSET", hold, "x", "y")),
            (add, ("DEL", inbox), ("DEL", results)),
        ),
        "operator": _Role((add, look, read_results, ("HSET", hold, "x", "y")), gone),
        "auditor": _Role((read_inbox, read_results), (add, add_result, ("HSET", hold, "x", "y"), *gone)),
        "jobs": _Role((add, read_results), gone),
        "metrics": _Role((look, ("INFO",)), (add, add_result, ("HSET", hold, "x", "y"), *gone)),
        f"producer-{lane.venue}-{lane.account}": _Role(
            (add,), (add_result, read_inbox, ("HSET", hold, "x", "y"), *gone)
        ),
    }  # fmt: skip


async def role_users(p: Patient, s: Server) -> list[Finding]:
    """Each user of a role there is: whether it may do what it needs, and nothing it must not."""
    users = {one.decode(errors="replace") for one in await asked(command(s.redis, "ACL", "USERS"))}
    lanes = p.configured or list(await p.found())
    findings = []
    for lane in lanes:
        for name, role in roles_of(lane).items():
            if name in users:
                findings.append(await _of_role(s, name, role))
    if not findings:
        return [About("doors.users", s.subject).ok("no user of a role by its usual name")]
    return _merged(findings)


def _merged(findings: Sequence[Finding]) -> list[Finding]:
    """One of each: a user that serves every lane is told once, and what is wrong with it for any lane counts."""
    kept: dict[str, Finding] = {}
    for one in findings:
        name = str(one.facts["user"])
        if name not in kept or one.level > kept[name].level:
            kept[name] = one
    return list(kept.values())


async def _of_role(s: Server, name: str, role: _Role) -> Finding:
    about = About("doors.users", s.subject)
    needs = await _tried(s.redis, name, role.needs)
    lacks = [_shown(words) for words, why in zip(role.needs, needs, strict=True) if why]
    never = (*TOO_MUCH, *role.never)
    may = [_shown(words) for words, why in zip(never, await _tried(s.redis, name, never), strict=True) if not why]
    facts: dict[str, Any] = {"user": name, "lacks": lacks, "may": may}
    if may:
        return about.fail(f"user {name} may {', '.join(may)}, which its role must not", ROLES, **facts)
    if lacks:
        return about.fail(f"user {name} may not {', '.join(lacks)}, which its role needs", ROLES, **facts)
    return about.ok(f"user {name} may do what its role needs, and no more", **facts)


async def _tried(redis: aioredis.Redis, user: str, commands: Sequence[tuple[Any, ...]]) -> list[str]:
    """For each command why the user may not run it, "" if it may. Nothing is run. Raises Untold."""
    replies = await round_trip(redis, [("ACL", "DRYRUN", user, *words) for words in commands])
    for reply in replies:
        if isinstance(reply, NoPermissionError):
            raise Untold("this user may not ask: it lacks +acl|dryrun", "ask as the server's admin")
        if isinstance(reply, RedisError) and "unknown" not in str(reply).lower():
            raise reply
    return [_why(reply) for reply in replies]


def _why(reply: object) -> str:
    if isinstance(reply, bytes):
        return "" if reply == b"OK" else reply.decode(errors="replace")
    return str(reply)


def _shown(words: tuple[Any, ...]) -> str:
    """A command in short: its name, and the key it is about."""
    two = words[0] in ("CONFIG", "ACL", "SCRIPT", "DEBUG")
    key = next((str(one) for one in words[1:] if str(one).startswith("cancelq:")), "")
    return " ".join(part for part in (str(words[0]), str(words[1]) if two else "", key) if part)
