"""BingX spot v1 as a venue: which call carries which intents, and what its answer says about each.

Facts and limits: BingX API documentation, spot trade pages; where its editions differ, the lower limit (per UID and
endpoint). A call is about one pair. Trigger and TP/SL orders share ids and endpoints with normal ones. Twenty equal
errors within eight minutes lock an endpoint, so cancels that may be in vain are sent only up to a third of that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from cancelq_worker.venues.bingx import answers, looks, rights, signing, sweeps
from cancelq_worker.venues.bingx.codes import OK, SECOND_US
from cancelq_worker.venues.bingx.rows import is_order_id, is_pair, order_keys
from cancelq_worker.venues.bingx.stream import SOCKETS, BingxStream
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
from cancelq_worker.venues.reading import epoch_ms, payload, word
from cancelq_worker.venues.sweeping import LIST, bulk_symbol, narrowed

API: Final = "/openApi/spot/v1/trade/"
TIME: Final = "/openApi/spot/v1/server/time"  # ccxt
OTHER_TIME: Final = "/openApi/swap/v2/server/time"  # BX-doc
BATCH: Final = 10  # how many ids cancelOrders takes is documented nowhere; its neighbours take five and ten
SCOPES: Final = ("order", "tpsl", "stop")
RESTRICTIONS: Final = (None, "NEW", "PENDING", "PARTIALLY_FILLED")  # of cancelRestrictions

#: One for each endpoint, by its name.
BUCKETS: Final = (
    Bucket("cancel", 5, SECOND_US),
    Bucket("cancelOrders", 2, SECOND_US),
    Bucket("cancelOpenOrders", 2, SECOND_US),
    Bucket("query", 10, SECOND_US),
    Bucket("openOrders", 10, SECOND_US),
    Bucket("historyOrders", 10, SECOND_US),
)
LOOKS_GROUP, CANCELS_GROUP = "bingx-group-2", "bingx-group-3"
#: Per address: 2000 calls in 10 s for a group of endpoints, 300 for each endpoint; open connections.
ADDRESS_BUCKETS: Final = (
    Bucket(LOOKS_GROUP, 2000, 10 * SECOND_US),
    Bucket(CANCELS_GROUP, 2000, 10 * SECOND_US),
    *(Bucket(f"bingx-{bucket.name}", 300, 10 * SECOND_US) for bucket in BUCKETS),
    SOCKETS,
)

_MANY: Final = ("cancel-orders", "cancel-orders-seen", "cancel-orders-blind")
_ROUTES: Final[tuple[Route, ...]] = (
    # What nobody has seen open lately may end in one more error.
    Route("cancel", Stage.CANCEL, ("id", "cid", "only", "trigger"), "cancel", errors=looks.ERRORS),
    Route("cancel-orders", Stage.CANCEL, ("id", "cid"), "cancelOrders", most=BATCH, least=3, errors=looks.ERRORS),
    Route(
        "cancel-seen",
        Stage.CANCEL,
        ("seen", "seen-cid", "seen-only", "seen-trigger", "blind-one"),
        "cancel",
        errors=sweeps.ERRORS,
    ),
    Route(
        "cancel-orders-seen",
        Stage.CANCEL,
        ("seen", "seen-cid"),
        "cancelOrders",
        most=BATCH,
        least=3,
        errors=sweeps.ERRORS,
    ),
    # Where no list tells client ids, they cannot be looked for first: a batch answers for each order by text, without
    # an error of the call.
    Route("cancel-orders-blind", Stage.CANCEL, ("blind",), "cancelOrders", most=BATCH, errors=sweeps.ERRORS),
    *sweeps.ROUTES,
    *looks.ROUTES,
)


def _addressed(route: Route) -> Route:
    group = LOOKS_GROUP if route.stage is Stage.LOOK else CANCELS_GROUP
    return replace(route, address=(group, f"bingx-{route.bucket}"))


ROUTES: Final = tuple(_addressed(route) for route in _ROUTES)
_ENDPOINTS: Final = {route.name: route.bucket for route in ROUTES}

#: Quote currencies of the venue's pairs, to tell how a pair without its hyphen should be spelled.
_QUOTES: Final = ("USDT", "USDC", "USD1", "USD", "EUR", "BTC", "ETH")


class Bingx:
    """One BingX account. Holds its credentials, and no other state."""

    name = "bingx"
    routes: tuple[Route, ...] = ROUTES
    other_address: tuple[str, ...] = (LOOKS_GROUP,)
    probe_route: str = "open"
    time_address: tuple[str, ...] = ()
    errors_us = 480 * SECOND_US
    time_requests: tuple[Request, ...] = (Request("GET", TIME), Request("GET", OTHER_TIME))
    timing = Timing(gap_us=2_000_000, look_after_us=100_000, patience_us=5_000_000, look_before_again=True)

    def __init__(
        self, credentials: signing.Credentials, limits: Mapping[str, int] | None = None, batch_size: int | None = None
    ) -> None:
        self._credentials = credentials
        self.stream: OrderStream | None = BingxStream()
        batch = batch_size or BATCH
        self.routes = tuple(replace(r, most=batch) if r.name in _MANY else r for r in ROUTES)
        self._manner = sweeps.manner(batch)
        self.buckets = sized(BUCKETS, limits)
        self.address_buckets = sized(ADDRESS_BUCKETS, limits)

    def endpoint(self, route: str) -> str:
        """The path a route calls, as events name it."""
        return API + _ENDPOINTS.get(route, route)

    # -- admission ------------------------------------------------------------------------------------------

    def admit(self, fields: Mapping[str, str]) -> Plan | Unfit:
        unfit = _unfit(fields)
        if unfit:
            return unfit
        target = Target(fields, {})
        if target.scope not in SCOPES:
            return self._manner.plan(target)
        return Plan(self.cancel_class(target), looks.next_look(target).look_class, self.order_keys(target))

    def order_keys(self, target: Target) -> tuple[str, ...]:
        """The same for every scope: at BingX all orders share their ids."""
        if target.scope not in SCOPES:
            return ()
        return order_keys(target.symbol or "", target.order_id or "", target.only_client_id)

    def cancel_class(self, target: Target) -> str:
        if target.scope not in SCOPES:
            return self._manner.cancel_class(target)
        seen = bool(target.notes.get("seen"))
        blind = bool(target.notes.get("blind")) and not target.order_id and not seen
        if blind:
            kind = "blind-one" if "only_if" in target.fields or target.scope != "order" else "blind"
        elif "only_if" in target.fields:
            kind = "seen-only" if seen else "only"
        elif target.scope != "order":
            kind = "seen-trigger" if seen else "trigger"
        elif target.order_id:
            kind = "seen" if seen else "id"
        else:
            kind = "seen-cid" if seen else "cid"
        return f"{kind}:{target.symbol or ''}"

    def told_limit(self, answer: Answer) -> int | None:
        return None  # X-RateLimit-Requests-Remain tells what is left, not of how much

    def sweep_named(self, route: str, target: Target) -> int:
        return len(self._manner.due(route, target))

    def next_look(self, target: Target) -> NextLook:
        if target.scope in SCOPES:
            return looks.next_look(target)
        return NextLook(self._manner.look_class(target))

    # -- calls ----------------------------------------------------------------------------------------------

    def encode(self, route: Route, targets: Sequence[Target]) -> Request:
        if not targets:
            raise ValueError("a call must name what it is about")
        most = next((known.most for known in self.routes if known.name == route.name), 1)
        if len(targets) > most:
            raise ValueError(f"{route.name} may name {most} orders in one call, not {len(targets)}")
        swept = targets[0].scope not in SCOPES
        if swept != any(route.name == known.name for known in sweeps.ROUTES):
            raise ValueError(f"{route.name} must not name intents of scope {targets[0].scope}")
        params = self._sweep_params(route, targets[0]) if swept else _params(route, targets)
        return Request("GET" if route.stage is Stage.LOOK else "POST", self.endpoint(route.name), signing.query(params))

    def _sweep_params(self, route: Route, target: Target) -> dict[str, str]:
        if route.name == LIST:
            return sweeps.query(target)
        if route.name == "cancel-open":
            if narrowed(target):
                raise ValueError("a bulk cancel must name a whole pair or account")
            pair = bulk_symbol(target)
            return {} if pair is None else {"symbol": _pair(pair)}
        rows = self._manner.due(route.name, target)
        if not all(is_order_id(row["id"]) for row in rows):
            raise ValueError("a sweep's cancel must name order ids")
        symbol = _pair(rows[0]["symbol"])
        if route.name == "sweep-one":
            return {"symbol": symbol, "orderId": rows[0]["id"]}
        return {"symbol": symbol, "orderIds": ",".join(row["id"] for row in rows), "process": "1"}

    def sign(self, request: Request, now_ms: int) -> Signed:
        return signing.sign(self._credentials, request, now_ms)

    def read_time(self, answer: Answer) -> int | None:
        body = payload(answer)
        inner = body.get("data") if body else None
        told = word(inner, "serverTime") if isinstance(inner, dict) else ""
        return epoch_ms(told) if len(told) == 13 else None

    def probe_request(self) -> Request:
        return Request("GET", API + "openOrders", signing.query({"symbol": "BTC-USDT"}))

    def read_probe(self, answer: Answer) -> Reply:
        return answers.read_failure(answer) or Reply(Word.OPEN, OK, http_status=answer.status)

    def rights_request(self) -> Request | None:
        return rights.REQUEST

    def read_rights(self, answer: Answer) -> KeyRights | Reply:
        body = payload(answer)
        if answer.status == 200 and body is not None and rights.is_bare(body):
            return rights.read(body)
        data = (body or {}).get("data")
        return answers.failure_of(answer, body) or rights.read(data if isinstance(data, dict) else {})

    # -- answers --------------------------------------------------------------------------------------------

    def decode(self, route: Route, targets: Sequence[Target], answer: Answer) -> list[Reply]:
        body = payload(answer)
        failure = answers.failure_of(answer, body)
        data = (body or {}).get("data")
        if route.stage is Stage.LOOK:
            if failure:
                return looks.failed(route, targets, failure)
            if route.name == LIST:
                return [sweeps.read(self._manner, targets[0], data)]
            return looks.read(route, targets, data)
        if failure:
            conditional = "only_if" in targets[0].fields
            return [answers.whole_call(failure, len(targets), conditional=conditional)] * len(targets)
        if route.name in _MANY:
            return answers.read_batch(targets, data, answer.status)
        if targets[0].scope not in SCOPES:
            return [answers.read_sweep(data, answer.status)]
        return [answers.read_single(targets[0], data, answer.status)]


def _unfit(fields: Mapping[str, str]) -> Unfit | None:
    symbol = fields.get("symbol")
    if symbol is None and fields["scope"] != "account":
        return Unfit("symbol", "symbol: missing; BingX wants the pair with every cancel, like BTC-USDT")
    if symbol is not None and (not is_pair(symbol) or symbol != symbol.upper()):
        right = _spelled(symbol)
        return Unfit("symbol", f"symbol: BingX spells pairs in capitals with a hyphen; {symbol!r} should be {right!r}")
    order_id, client_id = fields.get("order_id"), fields.get("client_order_id")
    if order_id is not None and not is_order_id(order_id):
        return Unfit("order_id", "order_id: BingX's order ids are digits; put your own id into client_order_id")
    if order_id is None and client_id is not None and not signing.is_safe(client_id):
        return Unfit(
            "client_order_id",
            f"client_order_id: {client_id!r} cannot be signed safely; BingX takes letters, digits and _ only,"
            " so cancel this order by its order_id",
        )
    return None


def _spelled(symbol: str) -> str:
    """The venue's spelling of what is most likely meant."""
    parts = [part for part in re.split(r"[^A-Z0-9]+", symbol.upper()) if part]
    if len(parts) == 1:
        quote = next((q for q in _QUOTES if parts[0].endswith(q) and parts[0] != q), "")
        parts = [parts[0].removesuffix(quote), quote] if quote else []
    return "-".join(parts) if len(parts) == 2 else "BTC-USDT"


def _params(route: Route, targets: Sequence[Target]) -> dict[str, str]:
    """Parameters of a call about orders."""
    if any(target.scope not in SCOPES for target in targets):
        raise ValueError("a call must name orders, or one sweep")
    if route.stage is Stage.LOOK:
        return looks.query(route, targets)
    params = {"symbol": looks.one_pair(targets)}
    refs = [looks.order_ref(target) for target in targets]
    if route.name not in _MANY:
        wanted = targets[0].fields.get("only_if")
        if wanted not in RESTRICTIONS:
            raise ValueError("a cancel must name a condition the venue knows, or none")
        return params | refs[0] | ({"cancelRestrictions": wanted} if wanted else {})
    if any("only_if" in target.fields or target.scope != "order" for target in targets):
        raise ValueError("a batch must name plain cancels of normal orders")
    (kind, *mixed) = {name for ref in refs for name in ref}
    if mixed:
        raise ValueError("a batch must not mix order ids and client ids")
    return params | {f"{kind}s": ",".join(ref[kind] for ref in refs), "process": "1"}


def _pair(symbol: str) -> str:
    if not is_pair(symbol):
        raise ValueError("a cancel must name a pair of the venue")
    return symbol
