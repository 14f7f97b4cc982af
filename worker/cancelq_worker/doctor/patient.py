"""What is examined: the settings, the lanes, and the servers they are on. What is asked of a server is asked once."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import redis.asyncio as aioredis
from redis.exceptions import NoPermissionError, ResponseError

from cancelq.broker import Broker, Place, slot_of
from cancelq.broker_async import AsyncGuide
from cancelq.contract import Lane
from cancelq_worker.settings import Settings
from cancelq_worker.snapshot import find_lanes
from cancelq_worker.trips import command, connect

#: Settings of a server that the checks look at.
CONFIG = (
    "appendfsync", "appendonly", "dir", "logfile", "maxmemory-policy", "min-replicas-to-write",
    "no-appendfsync-on-rewrite", "save", "stop-writes-on-bgsave-error",
)  # fmt: skip
CONNECTIONS = 16

ResultT = TypeVar("ResultT")


class Untold(Exception):
    """The server does not tell it to this user, or to nobody; `remedy` says how it could."""

    def __init__(self, told: str, remedy: str) -> None:
        super().__init__(told)
        self.remedy = remedy


class Once(Generic[ResultT]):
    """A question that is asked once, however many want its answer; all get the same answer, or the same error."""

    def __init__(self, ask: Callable[[], Awaitable[ResultT]]) -> None:
        self._ask = ask
        self._task: asyncio.Future[ResultT] | None = None

    async def __call__(self) -> ResultT:
        if self._task is None:
            self._task = asyncio.ensure_future(self._ask())
            self._task.add_done_callback(_seen)
        # One that is given up while it waits takes nothing from the others.
        return await asyncio.shield(self._task)


def _seen(task: asyncio.Future[Any]) -> None:
    """Its error is told by whoever waits; nobody may, once time is up."""
    if not task.cancelled():
        task.exception()


class Server:
    """One server as this process sees it. `subject`: how findings name it; `url`: of this one alone."""

    def __init__(self, subject: str, url: str, redis: aioredis.Redis) -> None:
        self.subject = subject
        self.url = url
        self.redis = redis
        self.info: Once[Mapping[str, Any]] = Once(self._info)
        self.config: Once[Mapping[str, str]] = Once(self._config)
        self.here: Once[bool] = Once(lambda: asyncio.to_thread(on_this_machine, url))

    async def _info(self) -> Mapping[str, Any]:
        return dict(await asked(self.redis.info()))

    async def _config(self) -> Mapping[str, str]:
        reply = await asked(command(self.redis, "CONFIG", "GET", *CONFIG))
        if isinstance(reply, dict):
            reply = [word for pair in reply.items() for word in pair]
        words = [word.decode(errors="replace") if isinstance(word, bytes) else str(word) for word in reply]
        return dict(zip(words[::2], words[1::2], strict=True))


class Patient:
    """One installation as this process sees it. `chosen`: the lanes that were asked for, empty for all."""

    def __init__(self, settings: Settings, chosen: Sequence[Lane] = (), *, offline: bool = False) -> None:
        self.settings = settings
        self.chosen = tuple(chosen)
        self.offline = offline
        self.broker = Broker.read(settings.redis_url)
        self.guide = AsyncGuide(self.broker)
        self._opened: list[aioredis.Redis] = []
        self.redis = self._connected(settings.redis_url)
        self.servers: Once[Sequence[Server]] = Once(self._servers)
        self.found: Once[Sequence[Lane]] = Once(self._found)

    @property
    def configured(self) -> list[Lane]:
        """The configured lanes that were asked for."""
        return [lane for lane in self.settings.lanes if not self.chosen or lane in self.chosen]

    async def _servers(self) -> Sequence[Server]:
        """The server, the master that the sentinels name, or the nodes of the cluster that hold slots. Raises
        RedisError if nobody tells where they are."""
        match self.broker.kind:
            case "server":
                return [Server("server", self.settings.redis_url, self.redis)]
            case "sentinel":
                return [Server("server", url_at(self.broker, await self.guide.master()), self.redis)]
            case "cluster":
                urls = {str(place): url_at(self.broker, place) for place in await self.guide.places(None)}
                return [Server(name, url, self._connected(url)) for name, url in urls.items()]

    def _connected(self, url: str) -> aioredis.Redis:
        redis = connect(url, max_connections=CONNECTIONS)
        self._opened.append(redis)
        return redis

    async def _found(self) -> Sequence[Lane]:
        """The lanes on the server that were asked for."""
        lanes = await asked(find_lanes(self.redis))
        return [lane for lane in lanes if not self.chosen or lane in self.chosen]

    async def now_ms(self) -> int:
        """The server's time, epoch ms."""
        return await server_ms(self.redis)

    async def holds(self, server: Server, lane: Lane) -> bool:
        """Whether a lane is on that server."""
        if self.broker.kind != "cluster":
            return True
        return server.subject in map(str, await self.guide.places(slot_of(lane.inbox)))

    async def close(self) -> None:
        """Ends every connection."""
        for redis in self._opened:
            await redis.aclose()


def url_at(broker: Broker, place: Place) -> str:
    """The URL of one server of a broker, with the same user, database and TLS."""
    return re.sub(r"^(\w+://(?:[^@/]*@)?)[^/?]+", lambda found: found[1] + str(place), broker.plain)


async def asked(question: Awaitable[ResultT]) -> ResultT:
    """The answer. Raises Untold where the server refuses the question, RedisError where it does not answer."""
    try:
        return await question
    except NoPermissionError as error:
        raise not_allowed(error) from error
    except ResponseError as error:
        if re.search("unknown (sub)?command", str(error), re.IGNORECASE):
            raise Untold("this server does not tell", "look at the server's own configuration") from error
        raise


def not_allowed(error: NoPermissionError) -> Untold:
    """In words, with the right that is missing."""
    named = re.search(r"run the '([^']+)' command", str(error))
    right = f"+{named[1]}" if named else "a key or a channel"
    return Untold(f"this user may not ask: it lacks {right}", f"allow it {right}, or ask as the server's admin")


async def server_ms(redis: aioredis.Redis) -> int:
    """The server's time, epoch ms. Raises Untold, RedisError."""
    seconds, micros = await asked(redis.time())
    return int(seconds) * 1000 + int(micros) // 1000


def host_of(url: str) -> str:
    """The host a URL of one server names; "" for a socket in the file system."""
    parts = urlsplit(url)
    return "" if parts.scheme == "unix" else parts.hostname or "localhost"


def on_this_machine(url: str) -> bool:
    """Whether nothing but this machine is between us and the server: a socket file, or a loopback address."""
    host = host_of(url)
    if not host:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = {str(row[4][0]).partition("%")[0] for row in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(one).is_loopback for one in found)
