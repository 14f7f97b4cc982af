"""Misbehaviour on request: which call it hits, whether the call is executed all the same, and what is
answered.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple, Self

import orjson

JSON = b"application/json"
HTML = b"text/html; charset=utf-8"

BAD_GATEWAY_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><center><h1>502</h1></center></body></html>"
CHALLENGE_PAGE = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>Checking.</body></html>"
ERROR_PAGE = b"<html><body><h1>Internal Server Error</h1></body></html>"

# Fields in which the three venues name an order.
ID_FIELDS = frozenset({"orderId", "clientOid", "orderLinkId", "clientOrderID", "clientOrderId"})

HUGE_BYTES = 100_000_000
HANG_MS = 60_000
DRIP_MS = 2_000
SLOW_MS = 1_000


class Delivery(StrEnum):
    """How an answer reaches the client, or how it does not."""

    answer = "answer"
    close = "close"
    reset = "reset"
    half = "half"
    hang = "hang"
    drip = "drip"
    huge = "huge"


@dataclass(slots=True)
class Reply:
    """What a call is answered with.

    `delay_ms` is waited before the answer starts (over all of it for a drip, until the connection is closed
    for a hang). With `resume` the call was not executed yet: wait `delay_ms`, call it, and deliver what it
    returns.
    """

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    delivery: Delivery = Delivery.answer
    delay_ms: int = 0
    size_bytes: int = 0
    resume: Callable[[], "Reply"] | None = None


class _Trait(NamedTuple):
    executes: bool
    delivery: Delivery = Delivery.answer
    delay_ms: int = 0


TRAITS = {
    "execute_and_drop": _Trait(True, Delivery.close),
    "drop": _Trait(False, Delivery.close),
    "reset": _Trait(False, Delivery.reset),
    "half_body": _Trait(True, Delivery.half),
    "http_500_executed": _Trait(True),
    "http_500": _Trait(False),
    "http_429": _Trait(False),
    "html_200": _Trait(False),
    "html_502": _Trait(False),
    "empty_200": _Trait(False),
    "garbage_200": _Trait(False),
    "slow_ms": _Trait(True, Delivery.answer, SLOW_MS),
    "late_ms": _Trait(True, Delivery.answer, SLOW_MS),
    "slow_drip": _Trait(True, Delivery.drip, DRIP_MS),
    "hang": _Trait(False, Delivery.hang, HANG_MS),
    "wrong_ids": _Trait(True),
    "missing_items": _Trait(True),
    "repeat_items": _Trait(True),
    "unknown_code": _Trait(False),
    "huge_body": _Trait(True, Delivery.huge),
}
# `code:43001` answers that code of the venue, `http:503` that status with a page.
OPEN_TRAITS = {"code": _Trait(False), "http": _Trait(False)}


class UnknownFaultError(Exception):
    """There is no such fault; the message lists the ones there are."""


@dataclass(slots=True)
class Fault:
    """One order to misbehave.

    It hits calls of `endpoint` (its last path segment, `venue/segment` or the whole path; one of several between
    blanks; empty: any) that name `order_id` (an order id or a client id; empty: any), of `uid` (empty: any), each
    with `probability`, until `count` of them were hit (None: without end). `execute` overrides whether the call is
    executed all the same.
    """

    kind: str
    endpoint: str = ""
    order_id: str = ""
    uid: str = ""
    count: int | None = 1
    probability: float = 1.0
    execute: bool | None = None
    delay_ms: int | None = None
    size_bytes: int = HUGE_BYTES
    id: int = 0
    hits: int = 0
    trait: _Trait = field(init=False, repr=False)

    def __post_init__(self) -> None:
        name, colon, argument = self.kind.partition(":")
        trait = OPEN_TRAITS.get(name) if colon and argument else TRAITS.get(self.kind)
        if trait is None or (name == "http" and not (argument.isdecimal() and 200 <= int(argument) <= 599)):
            kinds = ", ".join([*TRAITS, "code:<venue code>", "http:<status>"])
            raise UnknownFaultError(f"kind: no fault {self.kind!r}; there are {kinds}")
        delay_ms = trait.delay_ms if self.delay_ms is None else self.delay_ms
        executes = trait.executes if self.execute is None else self.execute
        self.trait = _Trait(executes, trait.delivery, delay_ms)

    @property
    def executes(self) -> bool:
        return self.trait.executes

    @property
    def argument(self) -> str:
        """What stands behind the colon."""
        return self.kind.partition(":")[2]

    def copy(self) -> Self:
        return replace(self)


class Target(NamedTuple):
    """What a fault is matched against."""

    venue: str
    endpoint: str
    path: str
    uid: str
    ids: Sequence[str]


class FaultBox:
    """The faults on order, asked once per call, in the order they were added."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._waiting: list[Fault] = []
        self._spent: list[Fault] = []
        self._numbered = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, fault: Fault) -> int:
        """Returns the fault's number."""
        self._numbered += 1
        fault.id = self._numbered
        self._waiting.append(fault)
        return fault.id

    def pick(self, target: Target) -> Fault | None:
        """The first fault that hits this call, its count taken down by one."""
        for fault in self._waiting:
            if not _matches(fault, target):
                continue
            if fault.probability < 1.0 and self._rng.random() >= fault.probability:
                continue
            fault.hits += 1
            if fault.count is not None:
                fault.count -= 1
                if fault.count <= 0:
                    self._waiting.remove(fault)
                    self._spent.append(fault)
            return fault
        return None

    def clear(self) -> None:
        self._waiting.clear()
        self._spent.clear()

    def listed(self) -> list[Fault]:
        """All faults, spent ones too, oldest first."""
        return sorted((fault.copy() for fault in (*self._waiting, *self._spent)), key=lambda fault: fault.id)


def _matches(fault: Fault, target: Target) -> bool:
    if fault.endpoint:
        known_as = {target.endpoint, f"{target.venue}/{target.endpoint}", target.path}
        if known_as.isdisjoint(fault.endpoint.split()):
            return False
    if fault.uid and fault.uid != target.uid:
        return False
    return not fault.order_id or fault.order_id in target.ids


def dress(fault: Fault, reply: Reply, rng: random.Random) -> Reply:
    """The reply as that fault leaves it. What is said in the venue's own words is up to the venue."""
    reply.delivery = fault.trait.delivery
    reply.delay_ms = fault.trait.delay_ms
    reply.size_bytes = fault.size_bytes
    match fault.kind:
        case "http_500" | "http_500_executed":
            _replace_page(reply, 500, ERROR_PAGE)
        case "html_200":
            _replace_page(reply, 200, CHALLENGE_PAGE)
        case "html_502":
            _replace_page(reply, 502, BAD_GATEWAY_PAGE)
        case "empty_200":
            reply.status, reply.body = 200, b""
        case "garbage_200":
            reply.status, reply.body = 200, b'{"code":"00000","msg":"succ\x00\xff'
        case "wrong_ids":
            reply.body = _edited(reply.body, _with_other_ids)
        case "missing_items":
            reply.body = _edited(reply.body, lambda data: _with_items_dropped(data, rng))
        case "repeat_items":
            reply.body = _edited(reply.body, lambda data: _with_items_repeated(data, rng))
        case kind if kind.startswith("http:"):
            _replace_page(reply, int(fault.argument), ERROR_PAGE)
        case _:
            pass
    return reply


def _replace_page(reply: Reply, status: int, page: bytes) -> None:
    reply.status, reply.body, reply.content_type, reply.headers = status, page, HTML, ()


def _edited(body: bytes, edit: Callable[[Any], Any]) -> bytes:
    return orjson.dumps(edit(orjson.loads(body)))


def _with_other_ids(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_other_ids(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _other_id(item) if name in ID_FIELDS and item else _with_other_ids(item) for name, item in value.items()
    }


def _other_id(value: Any) -> Any:
    # Near enough to a real id that only a comparison finds it out.
    if isinstance(value, int):
        return value + 7
    return str(int(value) + 7) if value.isdecimal() else value + "x"


def _with_items_dropped(value: Any, rng: random.Random) -> Any:
    """Every list of objects loses half of them, at least one; an answer without lists loses its fields."""
    dropped = [False]

    def walk(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: walk(item) for name, item in part.items()}
        if isinstance(part, list) and part and isinstance(part[0], dict):
            dropped[0] = True
            keep = sorted(rng.sample(range(len(part)), len(part) // 2))
            return [part[at] for at in keep]
        return part

    shorter = walk(value)
    if not dropped[0] and isinstance(shorter, dict):
        return {name: {} if isinstance(item, dict) else item for name, item in shorter.items()}
    return shorter


def _with_items_repeated(value: Any, rng: random.Random) -> Any:
    """Every list of objects holds one of them twice more."""
    if isinstance(value, dict):
        return {name: _with_items_repeated(item, rng) for name, item in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        again = rng.choice(value)
        return [*value, again, again]
    return value
