"""The way to the store: connections that take time, break, and lose replies, behind redis-py's own client.

A client made by the project gets its pool from `Wire.attach`; above that everything is as it is. Commands are handed
over as they are, without the protocol's bytes. What one write carries is carried out in its order, but others may come
in between.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.simulation.keyspace import Stream
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.store import Store

Words = list[bytes]
BLOCKING = b"BLOCK"


class Server:
    """The store as a process of its own: it may be down, slow, held, and forgets who was connected."""

    def __init__(self, loop: VirtualLoop, store: Store, rng: random.Random, process: Process) -> None:
        self.loop = loop
        self.store = store
        self.rng = rng
        self.process = process
        self.up = True
        self.loading = False
        self.commands = 0
        self.told: Callable[[Words, Any], None] | None = None
        self._numbered = 0
        self._connections: dict[int, Connection] = {}
        self._waiting: dict[bytes, list[Connection]] = {}

    def is_up(self) -> bool:
        return self.up

    def connected(self, connection: Connection) -> int:
        self._numbered += 1
        self._connections[self._numbered] = connection
        return self._numbered

    def gone(self, connection: Connection) -> None:
        self._connections.pop(connection.number, None)
        self._leave(connection)

    def stop(self) -> None:
        """Ends at once: every connection breaks, what was under way is not carried out."""
        self.up = False
        for connection in list(self._connections.values()):
            connection.dropped = True
            connection.broken("Connection closed by server.")
        self._waiting.clear()

    def carry_out(self, connection: Connection, commands: deque[Words]) -> None:
        """The commands of one write. Others' may come in between."""
        while commands and self.up and not connection.dropped:
            words = commands.popleft()
            self._one(connection, words)
            if commands and self.rng.random() < 0.15:
                self.loop.call_soon(self.carry_out, connection, commands)
                return

    def _one(self, connection: Connection, words: Words) -> None:
        self.commands += 1
        try:
            if self.loading:
                raise BusyLoadingError("LOADING Redis is loading the dataset in memory")
            if words[0] == b"XREAD" and BLOCKING in words:
                self._block(connection, words)
                return
            reply = self._client(connection, words) if words[0] == b"CLIENT" else self.store.execute(words)
        except (ResponseError, BusyLoadingError) as refused:
            reply = refused
        if self.told:
            self.told(words, reply)
        connection.answer(reply)
        self._wake()

    def _client(self, connection: Connection, words: Words) -> Any:
        if words[1] == b"ID":
            return connection.number
        other = self._connections.get(int(words[2]))
        if other is None or other.blocked is None:
            return 0
        self._leave(other)
        other.answer(None)
        return 1

    # -- blocking reads -----------------------------------------------------------------------------------------------

    def _block(self, connection: Connection, words: Words) -> None:
        for_ms = int(words[words.index(BLOCKING) + 1])
        reply = self.store.execute(words)
        if reply is not None:
            connection.answer(reply)
            return
        at = words.index(b"STREAMS") + 1
        keys = words[at : at + (len(words) - at) // 2]
        cursors = words[at + len(keys) :]
        for n, key in enumerate(keys):
            if cursors[n] == b"$":
                stream = self.store.get(key, Stream)
                words[at + len(keys) + n] = b"%d-%d" % stream.last if stream else b"0-0"
        connection.blocked = words
        for key in keys:
            self._waiting.setdefault(key, []).append(connection)
        if for_ms:
            connection.timer = self.loop.call_later(for_ms / 1000, self._timed_out, connection)

    def _timed_out(self, connection: Connection) -> None:
        self._leave(connection)
        connection.answer(None)

    def _leave(self, connection: Connection) -> None:
        if connection.blocked is not None:
            connection.blocked = None
            if connection.timer:
                connection.timer.cancel()
            for waiting in self._waiting.values():
                if connection in waiting:
                    waiting.remove(connection)

    def _wake(self) -> None:
        grown, self.store.grown = self.store.grown, []
        for key in dict.fromkeys(grown):
            for connection in list(self._waiting.get(key, ())):
                if connection.blocked is not None and (reply := self.store.execute(connection.blocked)) is not None:
                    self._leave(connection)
                    connection.answer(reply)


class Wire:
    """One process' way to the server. All times in seconds."""

    def __init__(self, server: Server, rng: random.Random) -> None:
        self.server = server
        self._rng = rng
        self.latency_s = (0.0001, 0.0004)
        self.slow_s = 0.0
        self.blackhole = False
        self.lose_replies = 0
        self._connections: set[Connection] = set()

    def attach(self, client: aioredis.Redis, *, most: int = 64, timeout_s: float = 2.5) -> aioredis.Redis:
        """Has this client's commands go this way."""
        client.connection_pool = Pool(self, most, timeout_s)  # type: ignore[assignment]
        return client

    def trip_s(self) -> float:
        low, high = self.latency_s
        # Now and then something takes ten times as long.
        stretched = 10.0 if self._rng.random() < 0.02 else 1.0
        return self.slow_s + stretched * (low + (high - low) * self._rng.random())

    def reset_on_loss(self) -> bool:
        return self._rng.random() < 0.5

    def cut(self) -> None:
        """Every connection breaks; what was on its way may have arrived."""
        for connection in sorted(self._connections, key=lambda one: one.number):
            connection.dropped = self._rng.random() < 0.5
            connection.broken("Connection reset by peer")

    def heal(self) -> None:
        self.slow_s, self.blackhole, self.lose_replies = 0.0, False, 0

    def joined(self, connection: Connection) -> None:
        self._connections.add(connection)

    def left(self, connection: Connection) -> None:
        self._connections.discard(connection)


class Connection:
    """One connection as redis-py's client and the project's round trips use it."""

    def __init__(self, wire: Wire, timeout_s: float) -> None:
        self._wire = wire
        self._loop = wire.server.loop
        self.socket_timeout = timeout_s
        self.retry = Retry(NoBackoff(), 0)
        self.db = 0
        self.host = "store"
        self.port = 0
        self.open = False
        self.dropped = False  # what was on its way does not arrive
        self.number = 0
        self.blocked: Words | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._replies: deque[Any] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._why = ""
        self._arrives_s = self._returns_s = 0.0
        self._deaf = False

    async def connect(self) -> None:
        server, wire = self._wire.server, self._wire
        if wire.blackhole:
            await asyncio.sleep(2.0)
            raise RedisTimeoutError("Timeout connecting to server")
        await asyncio.sleep(2 * wire.trip_s())
        if not server.up:
            raise RedisConnectionError("Error 111 connecting to store: Connection refused.")
        self.open, self._deaf = True, False
        self.number = server.connected(self)
        self._arrives_s = self._returns_s = self._loop.time()
        wire.joined(self)

    # -- as redis-py and the project use it ---------------------------------------------------------------------------

    def pack_command(self, *args: Any) -> list[Any]:
        return [args]

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[Any]:
        return [tuple(args) for args in commands]

    async def send_command(self, *args: Any, **_: Any) -> None:
        await self.send_packed_command([args])

    async def send_packed_command(self, commands: Sequence[Any], **_: Any) -> None:
        if not self.open:
            raise RedisConnectionError(self._why or "Connection not ready")
        wire = self._wire
        if wire.blackhole:
            self._deaf = True  # bytes of a stream cannot be missing in the middle
        if self._deaf:
            return
        batch = deque([words for command in commands for words in _words(command)])
        self._arrives_s = max(self._arrives_s, self._loop.time() + wire.trip_s())
        # It arrives whatever becomes of the sender.
        self._loop.at(wire.server.process, self._arrives_s, wire.server.carry_out, self, batch)

    async def read_response(self, *_: Any, disconnect_on_error: bool = True, **how: Any) -> Any:
        try:
            return await self._response(**how)
        except asyncio.CancelledError:
            if disconnect_on_error:  # as redis-py does: the next user would read this one's reply
                self._close("cancelled")
            raise

    async def _response(self, **how: Any) -> Any:
        if not self._replies:
            if not self.open:
                raise RedisConnectionError(self._why or "Connection closed")
            self._reader = self._loop.create_future()
            wait_s = how.get("timeout") or self.socket_timeout
            if wait_s == float("inf"):
                await self._reader
            else:
                try:
                    async with asyncio.timeout(wait_s):
                        await self._reader
                except TimeoutError:
                    self._close("timed out")
                    raise RedisTimeoutError("Timeout reading from store") from None
        reply = self._replies.popleft()
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def disconnect(self, *_: Any, **__: Any) -> None:
        self._close("Connection closed")

    def should_reconnect(self) -> bool:
        return False

    # -- from the server's side ---------------------------------------------------------------------------------------

    def answer(self, reply: Any) -> None:
        """A reply leaves the server."""
        wire = self._wire
        if wire.lose_replies > 0:
            wire.lose_replies -= 1
            self._deaf = True
            if wire.reset_on_loss():
                self.broken("Connection reset by peer")
        if self._deaf or wire.blackhole:
            self._deaf = True
            return
        self._returns_s = max(self._returns_s, self._loop.time() + wire.trip_s())
        self._loop.at(self._loop.world, self._returns_s, self._arrived, reply)

    def _arrived(self, reply: Any) -> None:
        if self.open:
            self._replies.append(reply)
            self._stir()

    def broken(self, why: str) -> None:
        """The connection broke under its user."""
        if self.open:
            self._replies.append(RedisConnectionError(why))
            self._close(why)
            self._stir()

    def _close(self, why: str) -> None:
        if self.open:
            self.open, self._why = False, why
            self._wire.server.gone(self)
            self._wire.left(self)

    def _stir(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class Pool:
    """Connections for one client, as redis-py's blocking pool gives them."""

    def __init__(self, wire: Wire, most: int, timeout_s: float) -> None:
        self.connection_kwargs = {"socket_timeout": timeout_s}
        self._wire = wire
        self._timeout_s = timeout_s
        self._free: list[Connection] = []
        self._room = asyncio.Semaphore(most)

    async def get_connection(self, *_: Any, **__: Any) -> Connection:
        await self._room.acquire()
        try:
            while self._free:
                connection = self._free.pop()
                if connection.open:
                    return connection
            connection = Connection(self._wire, self._timeout_s)
            await connection.connect()
        except BaseException:
            self._room.release()
            raise
        return connection

    async def release(self, connection: Connection) -> None:
        self._room.release()
        if connection.open:
            self._free.append(connection)

    async def disconnect(self, **_: Any) -> None:
        for connection in self._free:
            await connection.disconnect()

    async def aclose(self) -> None:
        await self.disconnect()


def _words(command: Any) -> list[Words]:
    """The words of a command; those of a write that was packed already are read from it."""
    if isinstance(command, bytes):
        return _unpacked(command)
    name, *rest = command
    words = [part.encode() if type(part) is str else part if type(part) is bytes else _word(part) for part in rest]
    return [[*_word(name).split(), *words]]


def _word(part: Any) -> bytes:
    if type(part) is bytes:
        return part
    if type(part) is str:
        return part.encode()
    if type(part) is int:
        return b"%d" % part
    return str(part).encode()


def _unpacked(data: bytes) -> list[Words]:
    """Commands out of the protocol's bytes."""
    found: list[Words] = []
    at = 0
    while at < len(data):
        end = data.index(b"\r\n", at)
        count, at = int(data[at + 1 : end]), end + 2
        words: Words = []
        for _ in range(count):
            end = data.index(b"\r\n", at)
            size = int(data[at + 1 : end])
            words.append(data[end + 2 : end + 2 + size])
            at = end + 2 + size + 2
        found.append(words)
    return found
