"""The Lua files, as they are loaded and run; and when what a script wrote is waited for."""

from __future__ import annotations

import hashlib
import importlib.resources
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio as aioredis
from redis.exceptions import NoScriptError, RedisError

from cancelq_worker.data_version import DATA_VERSION
from cancelq_worker.trips import ask, home, round_trip, script_keys

#: How long replicas may take to confirm a take: what is left of the 500 ms by which a call must leave is for the call.
CONFIRM_MS = 400


SCRIPT_NAMES = (
    "arrive", "admit", "ahead", "take", "permit", "settle", "claim", "trim", "stream", "roster", "egress", "guard",
    "look", "pace", "alive", "version", "sockets", "lanes",
)  # fmt: skip


def script_source(name: str) -> str:
    """A file of `lua/`, with the files it names in lines `--include NAME` in their place, and the version of the data
    it is written for."""
    text = (importlib.resources.files("cancelq_worker") / "lua" / f"{name}.lua").read_text()
    text = text.replace("--data-version\n", f"local DATA_VERSION = {DATA_VERSION}\n")
    return re.sub(r"^--include (\w+)$", lambda found: script_source(found[1]), text, flags=re.MULTILINE)


class Scripts:
    """The Lua files, each loaded once per server and again when the server has forgotten it."""

    def __init__(self) -> None:
        self.source = {name: script_source(name) for name in SCRIPT_NAMES}
        self.sha = {n: hashlib.sha1(s.encode(), usedforsecurity=False).hexdigest() for n, s in self.source.items()}
        # What cannot write is run as what cannot write: a user that may only read has no right to EVALSHA.
        self.verb = {
            n: "EVALSHA_RO" if "no-writes" in s.partition("\n")[0] else "EVALSHA" for n, s in self.source.items()
        }

    async def load(self, client: aioredis.Redis) -> None:
        """Loads every script. Idempotent, so that it may be repeated after any error."""
        for source in self.source.values():
            await client.script_load(source)

    async def run(self, client: aioredis.Redis, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """One script, loaded again if the server lost it."""
        try:
            return await ask(client, self.verb[name], self.sha[name], *script_keys(client, *keys), *args)
        except NoScriptError:
            await self.load(client)
            return await ask(client, self.verb[name], self.sha[name], *script_keys(client, *keys), *args)

    async def run_durably(
        self, client: aioredis.Redis, name: str, keys: Sequence[str], args: Sequence[Any], durability: Durability
    ) -> tuple[Any, str]:
        """The same; and why what it wrote is not on as many replicas as wanted, "" if it is."""
        if not durability.replicas:
            return await self.run(client, name, keys, args), ""
        at = home(client, keys[0])
        words = (self.verb[name], self.sha[name], *script_keys(client, *keys), *args)
        reply, *waited = await round_trip(at, [words], lambda _: durability.command)
        if isinstance(reply, NoScriptError):
            await self.load(at)
            reply, *waited = await round_trip(at, [words], lambda _: durability.command)
        if isinstance(reply, RedisError):
            raise reply
        return reply, durability.missing(waited)


@dataclass(frozen=True, slots=True)
class Durability:
    """How many replicas must have what a call takes, before it is sent. 0: nobody asks."""

    replicas: int = 0

    @property
    def command(self) -> tuple[Any, ...]:
        return ("WAIT", self.replicas, CONFIRM_MS)

    def missing(self, waited: Sequence[Any]) -> str:
        """Why the replies of `command` do not confirm it; "" if they do."""
        if not waited:
            return "the server had forgotten the scripts"
        if isinstance(waited[0], RedisError):
            return str(waited[0])
        if waited[0] < self.replicas:
            return f"{waited[0]} of {self.replicas} replicas had it after {CONFIRM_MS} ms"
        return ""


NOT_WAITED_FOR = Durability()


SCRIPTS = Scripts()
