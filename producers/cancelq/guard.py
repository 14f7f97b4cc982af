"""The asking side of the dead man's switch: while a strategy lives, it keeps its lane's guard; when it stops, workers
cancel everything the account has open, within a second of the deadline.

    with Guard("redis://127.0.0.1:6379/0", "bitget:main", ttl_s=10):
        trade()

Leaving the block in good order disarms the guard; leaving it by an exception does not, so the lane is flattened. With
`keep=False` nothing is kept in the background: the strategy calls `beat` itself, and thereby proves that its own loop
turns. A lane has one guard: of several that keep it, the last one to stop counts, and each can disarm it.

Any client does the same with one plain command, `SET cancelq:{bitget:main}:guard 1 PX 10000`, again and again.
"""

import asyncio
import os
import re
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self

import redis
import redis.asyncio
from redis.exceptions import RedisError

from cancelq import broker, broker_async
from cancelq.contract import VERSION, Lane, Status
from cancelq.errors import BrokerDown, BrokerRefused, CancelqError, NotAccepted
from cancelq.link import Answers, AsyncLink, Command, Link, options

# A shorter one would fire in any pause of a garbage collector; a longer one guards nothing.
TTL_LEAST_S, TTL_MOST_S = 1.0, 86_400.0
# Refusals after which it is done without telling so: without the right to write results, or of a server whose memory is
# full, which takes a DEL, and no MULTI.
UNTOLD = ("NOPERM", "OOM")
# How often a guard is kept within its time, and how soon a beat that failed is tried again.
BEATS, TRIES = 3, 10


class Guard:
    """One lane's guard, kept by a thread of its own unless `keep` is false.

    `source` is a url or a `redis.Redis`. `ttl_s`: how long after the last beat the lane is flattened, 1 s to a day.
    `lapses` counts the beats that found the guard gone: the lane was, or is being, flattened. `trouble` is what the
    last beat of the thread met, None if it went well. `ValueError` for a `ttl_s` out of bounds, `LaneError` for a lane
    that is none.
    """

    def __init__(
        self, source: "str | redis.Redis", lane: Lane | str, *, ttl_s: float = 10.0, keep: bool = True, actor: str = ""
    ) -> None:
        self._own = isinstance(source, str)
        if isinstance(source, str):
            source = broker.client(source, **_options(ttl_s))
        self._redis = source
        self._link = Link(source.connection_pool)
        self._words = Words(lane, ttl_s, actor)
        self._keep = keep
        self._ended = threading.Event()
        self._keeper: threading.Thread | None = None
        self.lapses = 0
        self.trouble: CancelqError | None = None

    def __enter__(self) -> Self:
        self.arm()
        if self._keep:
            self._keeper = threading.Thread(target=self._beat_on, name="cancelq-guard", daemon=True)
            self._keeper.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.leave()
        try:
            if kind is None:
                self.disarm()
        finally:
            self.close()

    def arm(self, *, told: bool = False) -> None:
        """Arms the guard; `told`: and tells so in the lane's results, if this user may write there. `NotAccepted` if no
        worker has ever served the lane: nobody would flatten it."""
        words = self._words
        now_ms = words.read_served(self._exchange(words.served()))
        self._tell(lambda telling: words.arm(now_ms, told=told and telling))

    def beat(self) -> bool:
        """Keeps the guard for another `ttl_s`; false if it was gone by then, so that the lane is being flattened. It is
        armed again then. Raises what reaching the server met: the guard goes on towards its deadline."""
        kept = self._words.read_beat(self._exchange(self._words.beat()))
        self.lapses += not kept
        return kept

    def disarm(self) -> None:
        """Ends the guard without flattening anything, and tells so in the lane's results, if this user may write there:
        a producer that is held to its role (`ops/redis`) may not, as it could write outcomes as well; nor may anybody
        while the server's memory is full."""
        words = self._words
        now_ms = words.read_time(self._exchange(words.served()))
        self._tell(lambda telling: words.disarm(now_ms, told=telling))

    def leave(self) -> None:
        """Ends the thread, not the guard: the lane is flattened when its time is over."""
        self._ended.set()
        if self._keeper is not None:
            self._keeper.join()
            self._keeper = None

    def close(self) -> None:
        """Ends the thread and the connections this guard made; not the guard."""
        self.leave()
        self._link.close()
        if self._own:
            self._redis.close()

    def pause_s(self, trouble: CancelqError | None = None) -> float:
        """How long to wait with the next beat, after one that went well or met `trouble`."""
        return self._words.pause_s(trouble)

    def _beat_on(self) -> None:
        while not self._ended.wait(self.pause_s(self.trouble)):
            try:
                self.beat()
                self.trouble = None
            except CancelqError as trouble:
                self.trouble = trouble

    def _tell(self, commands: Callable[[bool], list[Command]]) -> None:
        try:
            self._exchange(commands(True))
        except BrokerRefused as refused:
            if refused.code not in UNTOLD:
                raise
            self._exchange(commands(False))

    def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        return replies(self._link.exchange(self._words.lane, commands))


class AsyncGuard:
    """As `Guard`, for asyncio: kept by a task of the loop it is entered in, and so only while that loop turns.

    `source` is a url or a `redis.asyncio.Redis`.
    """

    def __init__(
        self,
        source: "str | redis.asyncio.Redis",
        lane: Lane | str,
        *,
        ttl_s: float = 10.0,
        keep: bool = True,
        actor: str = "",
    ) -> None:
        self._own = isinstance(source, str)
        if isinstance(source, str):
            source = broker_async.client(source, **_options(ttl_s))
        self._redis = source
        self._link = AsyncLink(source.connection_pool)
        self._words = Words(lane, ttl_s, actor)
        self._keep = keep
        self._keeper: asyncio.Task[None] | None = None
        self.lapses = 0
        self.trouble: CancelqError | None = None

    async def __aenter__(self) -> Self:
        await self.arm()
        if self._keep:
            self._keeper = asyncio.ensure_future(self._beat_on())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.leave()
        try:
            if kind is None:
                await self.disarm()
        finally:
            await self.aclose()

    async def arm(self, *, told: bool = False) -> None:
        """As `Guard.arm`."""
        words = self._words
        now_ms = words.read_served(await self._exchange(words.served()))
        await self._tell(lambda telling: words.arm(now_ms, told=told and telling))

    async def beat(self) -> bool:
        """As `Guard.beat`."""
        kept = self._words.read_beat(await self._exchange(self._words.beat()))
        self.lapses += not kept
        return kept

    async def disarm(self) -> None:
        """As `Guard.disarm`."""
        words = self._words
        now_ms = words.read_time(await self._exchange(words.served()))
        await self._tell(lambda telling: words.disarm(now_ms, told=telling))

    async def leave(self) -> None:
        """As `Guard.leave`."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper

    async def aclose(self) -> None:
        """As `Guard.close`."""
        await self.leave()
        await self._link.aclose()
        if self._own:
            await self._redis.aclose()

    async def _beat_on(self) -> None:
        while True:
            await asyncio.sleep(self._words.pause_s(self.trouble))
            try:
                await self.beat()
                self.trouble = None
            except CancelqError as trouble:
                self.trouble = trouble

    async def _tell(self, commands: Callable[[bool], list[Command]]) -> None:
        try:
            await self._exchange(commands(True))
        except BrokerRefused as refused:
            if refused.code not in UNTOLD:
                raise
            await self._exchange(commands(False))

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        return replies(await self._link.exchange(self._words.lane, commands))


class Words:
    """What both guards say to the server, and what its answers mean; the same words serve any client."""

    def __init__(self, lane: Lane | str, ttl_s: float, actor: str = "") -> None:
        if not TTL_LEAST_S <= ttl_s <= TTL_MOST_S:
            raise ValueError(f"ttl_s is {ttl_s:g}; wants {TTL_LEAST_S:g} to {TTL_MOST_S:g} seconds")
        self.lane = lane if isinstance(lane, Lane) else Lane.parse(lane)
        self._ttl_ms = int(ttl_s * 1000)
        self._actor = re.sub(r"[^A-Za-z0-9@._:-]", "-", actor or f"{os.getpid()}@{socket.gethostname()}")[:64]

    def pause_s(self, trouble: CancelqError | None) -> float:
        """How long until the next beat: there are several within the guard's time, more after one that failed."""
        return self._ttl_ms / 1000 / (TRIES if trouble else BEATS)

    def served(self) -> list[Command]:
        return [("EXISTS", self.lane.inbox), ("TIME",)]

    def read_served(self, answers: Sequence[Any]) -> int:
        """The server's time in epoch ms; `NotAccepted` if nobody has ever served the lane."""
        if not answers[0]:
            raise NotAccepted(str(self.lane))
        return self.read_time(answers)

    def read_time(self, answers: Sequence[Any]) -> int:
        """The same, whether or not somebody has served the lane."""
        seconds, micros = answers[1]
        return int(seconds) * 1000 + int(micros) // 1000

    def arm(self, now_ms: int, *, told: bool = False) -> list[Command]:
        """The guard and its mark, so that it counts even if no worker sees it before it expires; `told`: with an
        operator's event."""
        mark: Command = ("SET", self.lane.key("armed"), str(now_ms + self._ttl_ms))
        event = [self._event(f"armed for {self._ttl_ms / 1000:g} s at a time", now_ms)] if told else []
        return [("MULTI",), *self.beat(), mark, *event, ("EXEC",)]

    def beat(self) -> list[Command]:
        return [("SET", self.lane.guard, self._actor, "PX", str(self._ttl_ms), "GET")]

    def read_beat(self, answers: Sequence[Any]) -> bool:
        """Whether the guard was still there."""
        return answers[0] is not None

    def disarm(self, now_ms: int, *, told: bool = True) -> list[Command]:
        """Guard, mark and what a firing left to be followed, in one step; `told`: with an operator's event."""
        keys = (self.lane.guard, self.lane.key("armed"), self.lane.key("fired"))
        gone: Command = ("DEL", *keys)
        return [("MULTI",), gone, self._event("disarmed", now_ms), ("EXEC",)] if told else [gone]

    def _event(self, detail: str, now_ms: int) -> Command:
        """`now_ms`: the server's time, as all events are told by that clock."""
        fields = {
            "v": VERSION,
            "id": f"op-{secrets.token_hex(8)}",
            "venue": self.lane.venue,
            "account": self.lane.account,
            "status": Status.operator.value,
            "final": "0",
            "evidence": "local",
            "detail": f"the guard is {detail}",
            "act": "guard",
            "actor": self._actor,
            "settled_us": str(now_ms * 1000),
        }
        return ("XADD", self.lane.results, "NOMKSTREAM", "*", *(word for pair in fields.items() for word in pair))


def replies(answers: Answers) -> list[Any]:
    """The replies of a round trip; `BrokerDown` if one was lost, `BrokerRefused` if one was refused."""
    if answers.lost is not None:
        raise BrokerDown(answers.lost) from answers.lost
    for reply in answers.replies:
        refused = next((r for r in reply if isinstance(r, RedisError)), None) if isinstance(reply, list) else reply
        if isinstance(refused, RedisError):
            raise BrokerRefused(refused) from refused
    return answers.replies


def _options(ttl_s: float) -> dict[str, Any]:
    """A beat that hangs must fail early enough for another one."""
    return options(max(0.2, min(5.0, ttl_s / BEATS)))
