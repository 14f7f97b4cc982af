"""Bybit v5 spot as a venue: which call carries which intents, and what its answer says about each.

Facts and limits: Bybit API documentation v5, trade pages and rate limit page (limits are per UID and endpoint, for an
account without a VIP level). What an answer to a cancel means: accepted, never done; a cancel that was accepted can
still lose against a fill. So every end rests on the order's own row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from cancelq_worker.venues.bybit import answers, looks, rights, signing, sweeps
from cancelq_worker.venues.bybit.codes import OK
from cancelq_worker.venues.bybit.stream import CONNECTS, BybitStream
from cancelq_worker.venues.port import (
    Answer,
    Bucket,
    KeyRights,
    NextLook,
    OrderStream,
    Plan,
    Reply,
    Request,
    Route,
    Signed,
    Stage,
    Target,
    Timing,
    Unfit,
    Word,
    sized,
)
from cancelq_worker.venues.reading import payload, word

API: Final = "/v5/order/"
SECOND_US: Final = 1_000_000
DEMO_HOST: Final = "api-demo.bybit.com"  # its cancel-batch takes no spot orders

BUCKETS: Final = (
    Bucket("cancel", 20, SECOND_US),
    Bucket("cancel-batch", 20, SECOND_US),  # counted per order
    Bucket("cancel-all", 20, SECOND_US),
    Bucket("realtime", 50, SECOND_US),
    Bucket("history", 50, SECOND_US),
)
ADDRESS: Final = Bucket("bybit-ip", 600, 5 * SECOND_US)
ADDRESS_BUCKETS: Final = (ADDRESS, CONNECTS)

BATCH: Final = "cancel-batch"
BATCH_MOST: Final = 10
_SINGLY: Final = ("order", "tpsl", "stop", "sweep-order", "sweep-tpsl", "sweep-stop")
_BATCHES: Final[tuple[Route, ...]] = (
    Route(BATCH, Stage.CANCEL, ("order",), "cancel-batch", most=BATCH_MOST, least=2, per_call=0, per_order=1),
    Route(sweeps.BATCH, Stage.CANCEL, ("sweep-order",), "cancel-batch", by_class=True),
)
_OTHERS: Final[tuple[Route, ...]] = (
    Route("cancel", Stage.CANCEL, _SINGLY, "cancel"),
    Route("cancel-all", Stage.CANCEL, ("bulk-order", "bulk-tpsl", "bulk-stop"), "cancel-all"),
    *looks.ROUTES,
    *sweeps.ROUTES,
)

_SYMBOL = re.compile(r"[A-Z0-9]{2,32}")


class Bybit:
    """One Bybit account. Holds its credentials, and no other state. `singly`: it has no batches, as on demo."""

    name = "bybit"
    other_address: tuple[str, ...] = (ADDRESS.name,)
    probe_route: str = "realtime"
    time_address: tuple[str, ...] = ()
    errors_us = 0
    time_requests: tuple[Request, ...] = (Request("GET", "/v5/market/time"),)
    timing = Timing(gap_us=1_050_000, look_after_us=30_000, patience_us=3_000_000)

    def __init__(
        self,
        credentials: signing.Credentials,
        limits: Mapping[str, int] | None = None,
        batch_size: int | None = None,
        *,
        singly: bool = False,
    ) -> None:
        self._credentials = credentials
        self._singly = singly
        self.stream: OrderStream | None = BybitStream(credentials)
        self.buckets = sized(BUCKETS, limits)
        self.address_buckets = sized(ADDRESS_BUCKETS, limits)
        batch = 1 if singly else min(batch_size or BATCH_MOST, BATCH_MOST, _room(self.buckets))
        batches = tuple(replace(r, most=min(r.most, batch)) for r in _BATCHES) if batch > 1 else ()
        routes = (*batches, *_OTHERS)
        self.routes: tuple[Route, ...] = tuple(replace(r, address=(ADDRESS.name,)) for r in routes)
        self._sweep = sweeps.manner(batch)

    def endpoint(self, route: str) -> str:
        """The path a cancel route calls, as events name it."""
        return API + (BATCH if route == sweeps.BATCH else route)

    # -- admission ------------------------------------------------------------------------------------------

    def admit(self, fields: Mapping[str, str]) -> Plan | Unfit:
        unfit = _unfit(fields)
        if unfit:
            return unfit
        target = Target(fields, {})
        if target.scope not in looks.SCOPES:
            return self._sweep.plan(target)
        return Plan(target.scope, looks.next_look(target).look_class, self.order_keys(target))

    def order_keys(self, target: Target) -> tuple[str, ...]:
        if target.scope not in looks.SCOPES:
            return ()
        return looks.order_keys(target.scope, target.symbol or "", target.order_id or "", target.only_client_id)

    def cancel_class(self, target: Target) -> str:
        return target.scope if target.scope in looks.SCOPES else self._sweep.cancel_class(target)

    def told_limit(self, answer: Answer) -> int | None:
        return answers.told_limit(answer)

    def sweep_named(self, route: str, target: Target) -> int:
        return len(self._sweep.due(route, target))

    def next_look(self, target: Target) -> NextLook:
        if target.scope in looks.SCOPES:
            return looks.next_look(target)
        return NextLook(self._sweep.look_class(target))

    # -- calls ----------------------------------------------------------------------------------------------

    def encode(self, route: Route, targets: Sequence[Target]) -> Request:
        if not targets:
            raise ValueError("a call must name what it is about")
        if len(targets) > route.most:
            raise ValueError(f"{route.name} may name {route.most} orders in one call, not {len(targets)}")
        first = targets[0]
        if route.name in sweeps.NAMES:
            return Request("GET", API + "realtime", sweeps.encoded(sweeps.query(route, first)))
        if route.stage is Stage.LOOK:
            return Request("GET", API + route.name, sweeps.encoded(looks.query(first)))
        return Request("POST", self.endpoint(route.name), body=orjson.dumps(self._cancel_body(route, targets)))

    def _cancel_body(self, route: Route, targets: Sequence[Target]) -> dict[str, Any]:
        first = targets[0]
        match route.name:
            case "cancel" if first.scope in looks.SCOPES:
                return {"category": "spot", **_order_ref(first), **sweeps.filter_of(first.scope)}
            case "cancel":
                row = self._sweep.due(route.name, first)[0]
                return {"category": "spot", **_row_ref(row), **sweeps.filter_of(row.get("kind", "order"))}
            case "cancel-batch":
                if any(t.scope != "order" for t in targets):
                    raise ValueError("a Bybit batch must name normal orders only: it has no filter")
                return {"category": "spot", "request": [_order_ref(t) for t in targets]}
            case "sweep-batch":
                return {"category": "spot", "request": [_row_ref(row) for row in self._due_batch(first)]}
            case "cancel-all":
                return sweeps.bulk_body(first)
            case name:
                raise ValueError(f"no such cancel route: {name}")

    def _due_batch(self, target: Target) -> list[dict[str, str]]:
        due = self._sweep.due(sweeps.BATCH, target)
        if any("kind" in row for row in due):
            raise ValueError("a Bybit batch must name normal orders only: it has no filter")
        return due

    def sign(self, request: Request, now_ms: int) -> Signed:
        return Signed(request, signing.headers(self._credentials, request, now_ms))

    def read_time(self, answer: Answer) -> int | None:
        body = payload(answer)
        told = body.get("result") if body else None
        if not isinstance(told, dict):
            return None
        nanos, seconds = word(told, "timeNano"), word(told, "timeSecond")
        if re.fullmatch(r"[0-9]{19}", nanos, re.ASCII):
            return int(nanos) // 1_000_000
        return int(seconds) * 1000 if re.fullmatch(r"[0-9]{10}", seconds, re.ASCII) else None

    def probe_request(self) -> Request:
        return Request("GET", API + "realtime", "category=spot&limit=1")

    def read_probe(self, answer: Answer) -> Reply:
        return answers.failure_of(answer, payload(answer)) or Reply(Word.OPEN, OK, http_status=answer.status)

    def rights_request(self) -> Request | None:
        return None if self._singly else rights.REQUEST

    def read_rights(self, answer: Answer) -> KeyRights | Reply:
        body = payload(answer)
        result = (body or {}).get("result")
        return answers.failure_of(answer, body) or rights.read(result if isinstance(result, dict) else {})

    # -- answers --------------------------------------------------------------------------------------------

    def decode(self, route: Route, targets: Sequence[Target], answer: Answer) -> list[Reply]:
        body = payload(answer)
        failure = answers.failure_of(answer, body)
        result = (body or {}).get("result")
        if route.stage is Stage.LOOK:
            return [self._look(route, targets[0], failure, result)] * len(targets)
        if failure:
            return [answers.whole_call(failure, len(targets))] * len(targets)
        if route.name == BATCH:
            return answers.read_batch([_named(t) for t in targets], body or {}, answer)
        if route.name == sweeps.BATCH:
            named = [(row["id"], "") for row in self._sweep.due(route.name, targets[0])]
            return [answers.together(answers.read_batch(named, body or {}, answer))]
        if route.name == "cancel-all":
            return [answers.read_bulk(result)]
        if targets[0].scope not in looks.SCOPES:
            return [answers.read_single((self._sweep.due(route.name, targets[0])[0]["id"], ""), result)]
        return [answers.read_single(_named(targets[0]), result)]

    def _look(self, route: Route, target: Target, failure: Reply | None, result: Any) -> Reply:
        if failure:
            return looks.failed(route, failure)
        if route.name in sweeps.NAMES:
            return sweeps.read(route, self._sweep, target, result)
        return looks.read(route, target, result)


def _room(buckets: Sequence[Bucket]) -> int:
    """The most orders a batch may name so that it always fits into its bucket, urgent reserve left aside."""
    units = next(b.units for b in buckets if b.name == BATCH)
    return max(1, units - units // 5)


def _unfit(fields: Mapping[str, str]) -> Unfit | None:
    symbol, scope = fields.get("symbol"), fields["scope"]
    if symbol is None and scope in looks.SCOPES:
        return Unfit("symbol", "symbol: missing; Bybit cancels by pair and id: name the pair, like BTCUSDT")
    if symbol is not None and not _SYMBOL.fullmatch(symbol):
        right = re.sub(r"[^A-Za-z0-9]", "", symbol).upper() or "BTCUSDT"
        how = "in capitals" if right == symbol.upper() else "without a separator"
        return Unfit("symbol", f"symbol: Bybit spells pairs {how}; {symbol!r} should be {right!r}")
    if "only_if" in fields:
        return Unfit("only_if", "only_if: only BingX offers it; leave it out on a Bybit lane")
    return None


def _order_ref(target: Target) -> dict[str, str]:
    """The pair and exactly one id. Of two the venue would take `orderId`."""
    if not target.symbol:
        raise ValueError("this call must name a symbol")
    order_id, client_order_id = _named(target)
    if order_id:
        return {"symbol": target.symbol, "orderId": order_id}
    if client_order_id:
        return {"symbol": target.symbol, "orderLinkId": client_order_id}
    raise ValueError("a cancel must name an order")


def _named(target: Target) -> answers.Named:
    """The order id or else the client id by which a call names an order."""
    return (target.order_id, target.only_client_id) if target.order_id else ("", target.client_order_id or "")


def _row_ref(row: Mapping[str, str]) -> dict[str, str]:
    """The same for an order that a sweep found."""
    if not row.get("symbol") or not row.get("id"):
        raise ValueError("a sweep's cancel must name the symbol and the id of each order")
    return {"symbol": row["symbol"], "orderId": row["id"]}
