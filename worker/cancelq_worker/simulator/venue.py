"""What all simulated venues share around a call: the table of endpoints, and misbehaviour on order.

A venue brings its own keys, texts and answers; here is only what would be the same in each of them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from cancelq_worker.simulator.core import Call, Core
from cancelq_worker.simulator.faults import Fault, Reply, dress

SECOND_US = 1_000_000

Asked = TypeVar("Asked")


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[Asked]):
    """One path. `limit` is calls per second of one UID, or of one IP address where no key is asked for; `called`
    names the endpoint where the last segment of its path would not do.
    """

    method: str
    path: str
    limit: int
    run: Callable[[Asked], Any]
    private: bool = True
    called: str = ""

    @property
    def name(self) -> str:
        return self.called or self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Route(Generic[Asked]):
    """An endpoint with what the hot path would otherwise work out anew each time."""

    endpoint: Endpoint[Asked]
    name: str
    bucket: str
    text_path: str
    posts: bool


def routes_of(venue: str, endpoints: Iterable[Endpoint[Asked]]) -> dict[tuple[str, bytes], Route[Asked]]:
    """Method and path to route; a bucket is `venue/endpoint`."""
    return {
        (endpoint.method, endpoint.path.encode()): Route(
            endpoint, endpoint.name, f"{venue}/{endpoint.name}", endpoint.path, endpoint.method == "POST"
        )
        for endpoint in endpoints
    }


class Words(NamedTuple):
    """What a fault can make a venue say itself.

    `too_many` is the code `http_429` stands for, `invented` one that is in no table of the venue. `say` makes the
    venue's answer to a code, or to what stands behind the colon of a fault `code:…`.
    """

    too_many: str
    invented: str
    say: Callable[[str], Reply]


def misbehave(core: Core, fault: Fault, call: Call, execute: Callable[[], Reply], words: Words) -> Reply:
    """The answer to a call that a fault hits: executed or not, and dressed as the fault wants it. With `late_ms` the
    call arrives only after the delay, so the reply has a `resume`.
    """
    call.fault = fault.kind

    def run() -> Reply:
        reply = execute() if fault.executes else Reply(200, b"")
        said = _said(fault, words)
        if said:
            reply = words.say(said)
            call.code = said.partition(":")[0]
        reply = dress(fault, reply, core.rng)
        call.http_status = reply.status
        return reply

    if fault.kind == "late_ms":
        return Reply(0, b"", delay_ms=fault.trait.delay_ms, resume=lambda: _arrived_late(core, run))
    return run()


def _said(fault: Fault, words: Words) -> str:
    """What the fault makes the venue itself answer with, "" if it leaves that alone."""
    if fault.kind == "http_429":
        return words.too_many
    if fault.kind == "unknown_code":
        return words.invented
    return fault.argument if fault.kind.startswith("code:") else ""


def _arrived_late(core: Core, run: Callable[[], Reply]) -> Reply:
    core.tick()
    reply = run()
    reply.delay_ms = 0
    return reply
