"""Carrying commands to the server that holds a lane, each sent once.

redis-py repeats a command whose reply was lost, and an XADD that is repeated is queued twice. So the bytes go
through a connection taken from redis-py's pool by hand: one write, then one read per command. That also shows
which commands of a round trip were answered before a connection broke.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ExecAbortError,
    MovedError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from cancelq.broker import Place, key_of, node_options
from cancelq.contract import Lane
from cancelq.errors import BrokerDown, BrokerRefused

# A cluster that moves a lane's slot is followed this often per call.
MAX_REDIRECTS = 5
# How long one read may wait at the server; redis-py's socket gives up after 5 s.
BLOCK_MS = 2000

Command = Sequence[str]

# What a connection that is lost comes to: uvloop reports one that was reset while nobody used it as a RuntimeError.
_LOST = (RedisError, OSError, RuntimeError)

# What the server itself said: the command was not executed. Some of these are connection errors to redis-py.
_STATED = (ResponseError, AuthenticationError, AuthorizationError, BusyLoadingError)


@dataclass(frozen=True, slots=True)
class Answers:
    """Replies to the first commands of a round trip, in order; refusals are among them as exceptions.

    `lost` is what cut the rest off: those commands may or may not have been executed.
    """

    replies: list[Any] = field(default_factory=list)
    lost: BaseException | None = None

    def only(self) -> Any:
        """The reply to the one command of a read; `BrokerDown` if it was lost, `BrokerRefused` if refused."""
        if self.lost is not None:
            raise BrokerDown(self.lost) from self.lost
        (reply,) = self.replies
        if isinstance(reply, RedisError):
            raise BrokerRefused(reply) from reply
        return reply


class Link:
    """One round trip at a time to the server of a lane; any number of threads may use it at once."""

    def __init__(self, pool: "redis.ConnectionPool") -> None:
        self._pool = pool
        self._nodes: dict[Place, redis.ConnectionPool] = {}
        self._homes: dict[Lane, Place] = {}

    def close(self) -> None:
        for pool in self._nodes.values():
            pool.disconnect()

    def exchange(self, lane: Lane, commands: Sequence[Command]) -> Answers:
        """Replies in raw bytes, as protocol 2 or 3 gives them. `BrokerDown` if nothing was sent."""
        for _ in range(MAX_REDIRECTS):
            home = self._homes.get(lane)
            try:
                answers = self._round_trip(self._node_pool(home) if home else self._pool, commands)
            except BrokerDown:
                # The next call asks the first node again, which may know better by then.
                self._homes.pop(lane, None)
                raise
            said = _not_here(commands, answers)
            if said is None:
                break
            if isinstance(said, ReadOnlyError):
                if not _led(self._pool):
                    break
                # What sentinels name now is asked for by the next connection.
                self._pool.disconnect(inuse_connections=False)
                continue
            there = _node(self._pool.connection_kwargs, said)
            if not isinstance(said, MovedError):
                return _without_asking(self._round_trip(self._node_pool(there), _with_asking(commands)))
            self._homes[lane] = there
        return answers

    def _node_pool(self, node: Place) -> "redis.ConnectionPool":
        if node not in self._nodes:
            self._nodes[node] = redis.ConnectionPool(**node_options(self._pool, node))
        return self._nodes[node]

    def _round_trip(self, pool: "redis.ConnectionPool", commands: Sequence[Command]) -> Answers:
        answers = Answers()
        with self._connection(pool) as connection:
            try:
                connection.send_packed_command([_packed(commands)])
                for _ in commands:
                    try:
                        reply = connection.read_response(disable_decoding=True, disconnect_on_error=False)
                    except _STATED as refused:
                        reply = refused
                    answers.replies.append(reply)
            except (RedisError, OSError) as lost:
                connection.disconnect()
                return Answers(answers.replies, lost)
            except BaseException:
                # An interrupt between command and reply: the next user would read our replies.
                connection.disconnect()
                raise
        return answers

    @contextmanager
    def _connection(self, pool: "redis.ConnectionPool") -> Iterator[Any]:
        try:
            connection = pool.get_connection()
        except (RedisError, OSError) as down:
            raise BrokerDown(down) from down
        try:
            yield connection
        finally:
            pool.release(connection)


class AsyncLink:
    """As `Link`, for asyncio."""

    def __init__(self, pool: "redis.asyncio.ConnectionPool") -> None:
        self._pool = pool
        self._nodes: dict[Place, redis.asyncio.ConnectionPool] = {}
        self._homes: dict[Lane, Place] = {}

    async def aclose(self) -> None:
        for pool in self._nodes.values():
            await pool.disconnect()

    async def exchange(self, lane: Lane, commands: Sequence[Command]) -> Answers:
        """As `Link.exchange`. Cancelled while replies are awaited, it gives the connection up."""
        for _ in range(MAX_REDIRECTS):
            home = self._homes.get(lane)
            try:
                answers = await self._round_trip(self._node_pool(home) if home else self._pool, commands)
            except BrokerDown:
                self._homes.pop(lane, None)
                raise
            said = _not_here(commands, answers)
            if said is None:
                break
            if isinstance(said, ReadOnlyError):
                if not _led(self._pool):
                    break
                await self._pool.disconnect(inuse_connections=False)
                continue
            there = _node(self._pool.connection_kwargs, said)
            if not isinstance(said, MovedError):
                return _without_asking(await self._round_trip(self._node_pool(there), _with_asking(commands)))
            self._homes[lane] = there
        return answers

    def _node_pool(self, node: Place) -> "redis.asyncio.ConnectionPool":
        if node not in self._nodes:
            self._nodes[node] = redis.asyncio.ConnectionPool(**node_options(self._pool, node))
        return self._nodes[node]

    async def _round_trip(self, pool: "redis.asyncio.ConnectionPool", commands: Sequence[Command]) -> Answers:
        answers = Answers()
        cancels = _cancels()
        async with self._connection(pool) as connection:
            try:
                # One time-out for all replies: one each costs more than reading them.
                async with asyncio.timeout(connection.socket_timeout):
                    _heed(cancels)
                    await connection.send_packed_command([_packed(commands)])
                    _heed(cancels)
                    for _ in commands:
                        try:
                            reply = await connection.read_response(
                                disable_decoding=True, timeout=math.inf, disconnect_on_error=False
                            )
                        except _STATED as refused:
                            reply = refused
                        answers.replies.append(reply)
            except _LOST as lost:
                await connection.disconnect(nowait=True)
                return Answers(answers.replies, lost)
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
        return answers

    @asynccontextmanager
    async def _connection(self, pool: "redis.asyncio.ConnectionPool") -> AsyncIterator[Any]:
        try:
            connection = await pool.get_connection()  # type: ignore[no-untyped-call] # redis-py left it so
        except _LOST as down:
            raise BrokerDown(down) from down
        try:
            yield connection
        finally:
            await pool.release(connection)


def options(timeout_s: float) -> dict[str, Any]:
    """What the clients made from a url are made with."""
    # Protocol 2 begins without a greeting: a round trip and a permission less. Protocol 3 is understood as
    # well. Nor is the library told (CLIENT SETINFO), which old servers do not know and users need a right for.
    return {"protocol": 2, "driver_info": None, "socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}


def block_ms(pool: Any) -> float:
    """How long a read may wait at the server before the socket would give up on it."""
    socket_timeout_s: float | None = pool.connection_kwargs.get("socket_timeout", 5.0)
    return BLOCK_MS if socket_timeout_s is None else min(BLOCK_MS, socket_timeout_s * 1000 / 2)


def _cancels() -> int:
    """How often the running task was asked to end so far."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def _heed(cancels: int) -> None:
    """Ends the task if it was cancelled since, or its time-out ran out, and nobody noticed.

    redis-py connects and sends under `asyncio.wait_for`, which before Python 3.12 swallows a cancellation that
    comes just when it is done. Earlier cancellations, which the caller has chosen to outlive, do not count.
    """
    if _cancels() > cancels:
        raise asyncio.CancelledError


def _packed(commands: Sequence[Command]) -> bytes:
    """All commands as one write, in a third of the time that redis-py's packer takes for them."""
    return "".join(
        [
            f"*{len(command)}\r\n"
            + "".join([f"${len(text) if text.isascii() else len(text.encode())}\r\n{text}\r\n" for text in command])
            for command in commands
        ]
    ).encode()


def _not_here(commands: Sequence[Command], answers: Answers) -> MovedError | AskError | ReadOnlyError | None:
    """What a server says that is not the one for these commands, if it executed none of them.

    A batch of which a part was executed is not followed: it is told as it is.
    """
    if answers.lost is not None:
        return None
    said = next((reply for reply in answers.replies if isinstance(reply, MovedError | AskError | ReadOnlyError)), None)
    # To redis-py a MovedError is an AskError.
    if said is None or (type(said) is AskError and ("MULTI",) in commands):
        return None
    kind = (type(said), ExecAbortError)
    # Commands without a key, such as TIME and WAIT, change nothing and are answered by any server.
    keyed = (reply for command, reply in zip(commands, answers.replies, strict=True) if key_of(command) is not None)
    return said if all(isinstance(reply, kind) for reply in keyed) else None


def _with_asking(commands: Sequence[Command]) -> list[Command]:
    """For the node that a key has gone to already, while its slot is still being moved."""
    return [words for command in commands for words in (("ASKING",), command)]


def _without_asking(answers: Answers) -> Answers:
    return Answers(answers.replies[1::2], answers.lost)


def _led(pool: Any) -> bool:
    """Whether its connections find out by themselves where the master is."""
    return "guide" in pool.connection_kwargs


def _node(connection_kwargs: Mapping[str, Any], moved: MovedError | AskError) -> Place:
    # A node that does not know its own name leaves the host empty: the host it was reached by.
    return Place(moved.host or connection_kwargs["host"], moved.port)
