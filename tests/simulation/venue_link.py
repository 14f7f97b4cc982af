"""The way to the simulated venues: httpx' transport without a socket, on virtual time, which can lose every call."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from cancelq_worker.http import FIRST_BYTE
from cancelq_worker.simulator.core import Request
from cancelq_worker.simulator.faults import DRIP_MS, Delivery, Reply
from cancelq_worker.simulator.simulator import Simulator
from tests.simulation.loop import Process, VirtualLoop

_NEVER: dict[str, type[httpx.RequestError]] = {
    "reset": httpx.ReadError,
    "closed": httpx.RemoteProtocolError,
    "silent": httpx.ReadTimeout,
}


class VenueLink:
    """One worker's way to the venues. `ip`: the address its calls come from."""

    def __init__(self, loop: VirtualLoop, venue: Process, simulator: Simulator, rng: random.Random, ip: str) -> None:
        self._loop = loop
        self._venue = venue
        self._simulator = simulator
        self._rng = rng
        self._ip = ip
        self.blackhole = False
        self.refused = False
        self.lose = ""  # how the next answer is lost: a word of `_NEVER`, or "early" for a call that never arrives
        self.slow_s = 0.0
        self.leaving: Callable[[str, bytes], bool] = lambda path, named: True  # False: it does not leave
        self.lost = 0

    def transport(self, _: object = None) -> httpx.AsyncBaseTransport:
        return _Transport(self)

    def heal(self) -> None:
        self.blackhole = self.refused = False
        self.lose, self.slow_s = "", 0.0

    async def call(self, request: httpx.Request) -> httpx.Response:
        """Raises httpx' own errors, as a connection would."""
        times = request.extensions["timeout"]
        if self.refused:
            await asyncio.sleep(0.001)
            raise httpx.ConnectError("connection refused")
        if trace := request.extensions.get("trace"):
            await trace(FIRST_BYTE, {})
        if not self.leaving(request.url.path, request.url.query + await request.aread()):
            await asyncio.sleep(1_000)  # of a process that is no more
        travel = _Travel(self._loop.create_future())
        if self.blackhole:
            travel.lost = True
        way_s = self.slow_s + self._simulator.way_in_s() + 0.0005 * self._rng.random()
        how, self.lose = self.lose, ""
        if not travel.lost and how != "early":
            self._loop.at(self._venue, self._loop.time() + way_s, self._arrive, _wanted(request, self._ip), travel, how)
        if how == "early":
            self._break(travel, httpx.RemoteProtocolError, way_s)
        try:
            async with asyncio.timeout(times["read"]):
                reply: Reply = await travel.answer
        except TimeoutError:
            raise httpx.ReadTimeout("no answer in time") from None
        return httpx.Response(reply.status, headers=list(_headers(reply)), stream=_Body(reply))

    def _arrive(self, request: Request, travel: _Travel, how: str) -> None:
        """At the venue's door, in its process."""
        reply = self._simulator.call(request)
        self._deliver(reply, travel, how)

    def _deliver(self, reply: Reply, travel: _Travel, how: str) -> None:
        if reply.resume is not None:
            resume: Callable[[], Reply] = reply.resume
            after_s = self._loop.time() + reply.delay_ms / 1000
            self._loop.at(self._venue, after_s, lambda: self._deliver(resume(), travel, how))
            return
        way_s = self.slow_s + self._simulator.way_out_s() + 0.0005 * self._rng.random()
        if how:
            self.lost += 1
            if how != "silent":
                self._break(travel, _NEVER[how], way_s)
            return
        if self.blackhole:
            return
        match reply.delivery:
            case Delivery.reset:
                self._break(travel, httpx.ReadError, way_s)
            case Delivery.close:
                self._break(travel, httpx.RemoteProtocolError, way_s)
            case Delivery.hang:
                self._break(travel, httpx.RemoteProtocolError, way_s + reply.delay_ms / 1000)
            case Delivery.half | Delivery.huge | Delivery.drip | Delivery.answer:
                delay_s = reply.delay_ms / 1000 if reply.delivery is Delivery.answer else 0.0
                self._loop.at(self._venue, self._loop.time() + way_s + delay_s, travel.arrived, reply)

    def _break(self, travel: _Travel, kind: type[httpx.RequestError], after_s: float) -> None:
        self._loop.at(self._venue, self._loop.time() + after_s, travel.broke, kind("the connection broke"))


@dataclass(slots=True)
class _Travel:
    """A call that somebody waits for."""

    answer: asyncio.Future[Reply]
    lost: bool = False

    def arrived(self, reply: Reply) -> None:
        if not self.answer.done():
            self.answer.set_result(reply)

    def broke(self, error: httpx.RequestError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, link: VenueLink) -> None:
        self._link = link

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._link.call(request)


class _Body(httpx.AsyncByteStream):
    """An answer's body as it comes: whole, by half and then never, or in drops."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    async def __aiter__(self):  # type: ignore[no-untyped-def]  # an async generator is what httpx wants here
        body, delivery = self._reply.body, self._reply.delivery
        match delivery:
            case Delivery.half:
                yield body[: len(body) // 2]
                raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")
            case Delivery.huge:
                for _ in range(80):
                    yield b" " * 65_536
                yield body
            case Delivery.drip:
                for at in range(0, len(body), max(1, len(body) // 8)):
                    await asyncio.sleep((self._reply.delay_ms or DRIP_MS) / 8000)
                    yield body[at : at + max(1, len(body) // 8)]
            case _:
                yield body


def _wanted(request: httpx.Request, ip: str) -> Request:
    path, _, query = request.url.raw_path.partition(b"?")
    headers = {name.lower(): value for name, value in request.headers.raw}
    return Request(request.method, path, query, headers, request.content, ip)


def _headers(reply: Reply) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", reply.content_type), *reply.headers]
