"""Bitget v2 spot as a venue: which call carries which intents, and what its answer says about each.

Facts and limits: Bitget API documentation, classic spot trade and plan pages (limits are per UID and endpoint).
What an answer to a cancel means: accepted, never done. So every end rests on orderInfo or an order list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote, urlencode

import orjson

from cancelq_worker.venues.bitget import looks, rights, signing, sweeps
from cancelq_worker.venues.bitget.codes import CODES, HAD_AN_END, OK, REMEDIES, word_of
from cancelq_worker.venues.bitget.stream import CONNECTS, SOCKETS, BitgetStream
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
from cancelq_worker.venues.reading import NOT_ASKED, OTHERS, named_field, names_another, payload, rows_of, safe_id, word

API: Final = "/api/v2/spot/trade/"
SECOND_US: Final = 1_000_000
BAN_US: Final = 300 * SECOND_US  # FAQ: an address that went over its limit recovers after five minutes

BUCKETS: Final = (
    Bucket("cancel-order", 10, SECOND_US),
    Bucket("batch-cancel-order", 10, SECOND_US),
    Bucket("cancel-symbol-order", 5, SECOND_US),
    Bucket("cancel-plan-order", 20, SECOND_US),
    Bucket("orderInfo", 20, SECOND_US),
    Bucket("unfilled-orders", 20, SECOND_US),
    Bucket("history-orders", 20, SECOND_US),
    Bucket("current-plan-order", 20, SECOND_US),
    Bucket("history-plan-order", 20, SECOND_US),
)
ADDRESS: Final = Bucket("bitget-ip", 6000, 60 * SECOND_US)  # FAQ: 6000 calls a minute and address, over all endpoints
TIME_CALLS: Final = Bucket("bitget-time", 20, SECOND_US, rare=True)  # public/time: 20 a second and address
ADDRESS_BUCKETS: Final = (ADDRESS, TIME_CALLS, CONNECTS, SOCKETS)

BATCH: Final = "batch-cancel-order"
_ROUTES: Final[tuple[Route, ...]] = (
    Route("cancel-order", Stage.CANCEL, ("by-id", "by-client-id", "tpsl", "sweep-tpsl"), "cancel-order"),
    Route(BATCH, Stage.CANCEL, ("by-id", "by-client-id"), "batch-cancel-order", most=50, least=2),
    Route("cancel-symbol-order", Stage.CANCEL, ("symbol",), "cancel-symbol-order"),
    Route("cancel-plan-order", Stage.CANCEL, ("stop", "sweep-stop"), "cancel-plan-order"),
    Route("sweep-cancel", Stage.CANCEL, ("sweep-order",), "batch-cancel-order"),
    *looks.ROUTES,
    *sweeps.ROUTES,
)
ROUTES: Final = tuple(replace(route, address=(ADDRESS.name,)) for route in _ROUTES)

#: Routes whose name is not the endpoint they call.
ENDPOINTS: Final = {"sweep-cancel": "batch-cancel-order"}

_SYMBOL = re.compile(r"[A-Za-z0-9]{2,32}")

#: The venue's parameter names in the words of an intent.
_FIELDS: Final = (("symbol", "symbol"), ("clientoid", "client_order_id"), ("orderid", "order_id"))


class Bitget:
    """One Bitget account. Holds its credentials, and no other state."""

    name = "bitget"
    routes: tuple[Route, ...] = ROUTES
    other_address: tuple[str, ...] = (ADDRESS.name,)
    probe_route: str = "open"
    time_address: tuple[str, ...] = (TIME_CALLS.name,)
    errors_us = 0
    time_requests: tuple[Request, ...] = (Request("GET", "/api/v2/public/time"),)
    timing = Timing(gap_us=1_250_000, look_after_us=30_000, patience_us=3_000_000)

    def __init__(
        self, credentials: signing.Credentials, limits: Mapping[str, int] | None = None, batch_size: int | None = None
    ) -> None:
        self._credentials = credentials
        self.stream: OrderStream | None = BitgetStream(credentials)
        if batch_size:
            self.routes = tuple(replace(r, most=min(r.most, batch_size)) if r.name == BATCH else r for r in ROUTES)
        self.buckets = sized(BUCKETS, limits)
        self.address_buckets = sized(ADDRESS_BUCKETS, limits)

    def endpoint(self, route: str) -> str:
        """The path a cancel route calls, as events name it."""
        return API + ENDPOINTS.get(route, route)

    # -- admission ------------------------------------------------------------------------------------------

    def admit(self, fields: Mapping[str, str]) -> Plan | Unfit:
        unfit = _unfit(fields)
        if unfit:
            return unfit
        target = Target(fields, {})
        match target.scope:
            case "symbol" | "account":
                return sweeps.MANNER.plan(target)
            case "order":
                kind = "by-id" if target.order_id else "by-client-id"
            case scope:
                kind = scope
        return Plan(kind, looks.next_look(target).look_class, self.order_keys(target))

    def order_keys(self, target: Target) -> tuple[str, ...]:
        if target.scope not in looks.SCOPES:
            return ()
        keys = []
        if target.order_id:
            keys.append(f"{target.scope}:i:{target.order_id}")
        if target.only_client_id:
            keys.append(f"{target.scope}:c:{target.symbol or ''}:{target.only_client_id}")
        return tuple(keys)

    def cancel_class(self, target: Target) -> str:
        if target.scope == "order":
            return "by-id" if target.order_id else "by-client-id"
        if target.scope in looks.SCOPES:
            return target.scope
        return sweeps.MANNER.cancel_class(target)

    def told_limit(self, answer: Answer) -> int | None:
        return None  # x-mbx-used-remain-limit tells what is left, not of how much

    def sweep_named(self, route: str, target: Target) -> int:
        return len(sweeps.MANNER.due(route, target))

    def next_look(self, target: Target) -> NextLook:
        if target.scope in looks.SCOPES:
            return looks.next_look(target)
        return NextLook(sweeps.MANNER.look_class(target))

    # -- calls ----------------------------------------------------------------------------------------------

    def encode(self, route: Route, targets: Sequence[Target]) -> Request:
        if not targets:
            raise ValueError("a call must name what it is about")
        if len(targets) > route.most:
            raise ValueError(f"{route.name} may name {route.most} orders in one call, not {len(targets)}")
        if route.stage is Stage.LOOK:
            path, params = (
                sweeps.query(route, targets[0]) if route.name in sweeps.NAMES else looks.query(route, targets)
            )
            return Request("GET", API + path, urlencode(sorted(params.items()), quote_via=quote))
        body = _cancel_body(route, targets)
        return Request("POST", self.endpoint(route.name), body=orjson.dumps(body))

    def sign(self, request: Request, now_ms: int) -> Signed:
        return Signed(request, signing.headers(self._credentials, request, now_ms))

    def read_time(self, answer: Answer) -> int | None:
        data = payload(answer)
        inner = data.get("data") if data else None
        text = word(inner, "serverTime") if isinstance(inner, dict) else ""
        return int(text) if re.fullmatch(r"[0-9]{13}", text) else None

    def probe_request(self) -> Request:
        return Request("GET", API + "unfilled-orders", "limit=1")

    def read_probe(self, answer: Answer) -> Reply:
        failure = read_failure(answer)
        return failure or Reply(Word.OPEN, OK, http_status=answer.status)

    def rights_request(self) -> Request | None:
        return rights.REQUEST

    def read_rights(self, answer: Answer) -> KeyRights | Reply:
        body = payload(answer)
        data = (body or {}).get("data")
        return _failure_of(answer, body) or rights.read(data if isinstance(data, dict) else {})

    # -- answers --------------------------------------------------------------------------------------------

    def decode(self, route: Route, targets: Sequence[Target], answer: Answer) -> list[Reply]:
        body = payload(answer)
        failure = _failure_of(answer, body)
        data = (body or {}).get("data")
        if route.stage is Stage.LOOK:
            if failure:
                return [looks.failed(route, failure)] * len(targets)
            if route.name in sweeps.NAMES:
                return [sweeps.read(route, targets[0], data)]
            return looks.read(route, targets, data)
        if failure:
            return [_whole_call(failure, len(targets))] * len(targets)
        if route.name == BATCH:
            return _read_batch(targets, data, answer.status)
        if route.name == "sweep-cancel":
            return [Reply(Word.ACKNOWLEDGED, OK, http_status=answer.status)]
        return [_read_single(route, targets[0], data, answer.status)]


def _unfit(fields: Mapping[str, str]) -> Unfit | None:
    symbol, order_id = fields.get("symbol"), fields.get("order_id")
    if symbol is not None and not _SYMBOL.fullmatch(symbol):
        right = re.sub(r"[^A-Za-z0-9]", "", symbol).upper() or "BTCUSDT"
        return Unfit("symbol", f"symbol: Bitget spells pairs without a separator; {symbol!r} should be {right!r}")
    if symbol is not None and symbol != symbol.upper():
        return Unfit("symbol", f"symbol: Bitget spells pairs in capitals; {symbol!r} should be {symbol.upper()!r}")
    if order_id is not None and not looks.is_order_id(order_id):
        return Unfit("order_id", "order_id: Bitget's order ids are digits; put your own id into client_order_id")
    if fields["scope"] == "tpsl" and not order_id:
        return Unfit("order_id", "order_id: missing; Bitget cancels TP/SL orders by order_id only")
    if "only_if" in fields:
        return Unfit("only_if", "only_if: only BingX offers it; leave it out on a Bitget lane")
    return None


def _order_ref(target: Target) -> dict[str, str]:
    """Exactly one id: which of two Bitget would prefer is not documented for this endpoint."""
    if target.order_id:
        return {"orderId": target.order_id}
    if target.client_order_id:
        return {"clientOid": target.client_order_id}
    raise ValueError("a cancel must name an order")


def _cancel_body(route: Route, targets: Sequence[Target]) -> dict[str, Any]:
    first = targets[0]
    match route.name:
        case "cancel-order" if first.scope == "tpsl":
            return {"tpslType": "tpsl", **_order_ref(first)}
        case "cancel-order" if first.scope != "order":
            return {"tpslType": "tpsl", "orderId": sweeps.MANNER.due(route.name, first)[0]["id"]}
        case "cancel-order":
            return {"symbol": _symbol(first), **_order_ref(first)}
        case "cancel-plan-order" if first.scope == "stop":
            return _order_ref(first)
        case "cancel-plan-order":
            return {"orderId": sweeps.MANNER.due(route.name, first)[0]["id"]}
        case "cancel-symbol-order":
            return sweeps.bulk_body(first)
        case "sweep-cancel":
            return _batch_body(
                [(row["symbol"], {"orderId": row["id"]}) for row in sweeps.MANNER.due(route.name, first)]
            )
        case "batch-cancel-order":  # BATCH; a name would be a pattern
            if any(t.scope != "order" for t in targets):
                raise ValueError("a Bitget batch must name normal orders only")
            refs = [(_symbol(t), _order_ref(t)) for t in targets]
            if len({tuple(ref) for _, ref in refs}) > 1:
                raise ValueError("a Bitget batch must not mix order ids and client ids")
            return _batch_body(refs)
        case name:
            raise ValueError(f"no such cancel route: {name}")


def _batch_body(refs: list[tuple[str, dict[str, str]]]) -> dict[str, Any]:
    if not refs:
        raise ValueError("a batch must name at least one order")
    symbols = {symbol for symbol, _ in refs}
    if "" in symbols:
        raise ValueError("a batch must name the symbol of every order")
    if len(symbols) == 1:
        return {"symbol": symbols.pop(), "batchMode": "single", "orderList": [ref for _, ref in refs]}
    return {"batchMode": "multiple", "orderList": [{"symbol": symbol, **ref} for symbol, ref in refs]}


def _symbol(target: Target) -> str:
    if not target.symbol:
        raise ValueError("this call must name a symbol")
    return target.symbol


def read_failure(answer: Answer) -> Reply | None:
    """What stands against the whole call, or None if the venue says `00000` under HTTP 200."""
    return _failure_of(answer, payload(answer))


def _failure_of(answer: Answer, data: Mapping[str, Any] | None) -> Reply | None:
    code, text = word(data or {}, "code", 16), word(data or {}, "msg")
    if answer.status >= 500:
        # It may come from a gateway in front of a venue that did execute, whatever it says.
        return Reply(Word.UNCLEAR, code, f"HTTP {answer.status}: {text}", answer.status)
    if answer.status == 429 or code == "429":
        return Reply(Word.REFUSED, code or "429", text or "too many requests", 429)
    if answer.status == 403 and code not in CODES:
        return Reply(Word.REFUSED, code, "HTTP 403: this address is blocked", 403, retry_us=BAN_US, whole_address=True)
    if code == OK and answer.status == 200:
        return None
    if data is None or not code:
        return Reply(Word.UNCLEAR, "", f"HTTP {answer.status} with an unreadable answer", answer.status)
    if code == OK:  # success under another status: not believed
        return Reply(Word.UNCLEAR, code, f"HTTP {answer.status}: {text}", answer.status)
    said, ours = REMEDIES.get(code, text), code in REMEDIES
    return Reply(word_of(code), code, said, answer.status, notes=_known(code), ours=ours)


def _whole_call(failure: Reply, orders: int) -> Reply:
    """A refusal of the whole call, for each order in it."""
    meant, text = failure.word, failure.text
    if orders > 1 and meant in (Word.FAILED, Word.DOUBTED):
        meant = Word.SPLIT  # one entry may have spoilt it
    elif orders > 1 and meant is Word.GONE:
        meant = Word.UNCLEAR  # says "no such order" without saying which
    elif meant is Word.FAILED:
        text = named_field(text, _FIELDS)
    notes = failure.notes if orders == 1 else {}
    return replace(failure, word=meant, text=text, notes=notes)


def _known(code: str) -> dict[str, Any]:
    """What is noted of an order by a code that says that there was one."""
    return {"known": 1} if code in HAD_AN_END else {}


def _read_single(route: Route, target: Target, data: Any, status: int) -> Reply:
    if not isinstance(data, dict):
        return Reply(Word.UNCLEAR, OK, "an answer without data", status)
    if route.name == "cancel-plan-order":
        if data.get("result") != "success":
            return Reply(Word.UNCLEAR, OK, f"result: {word(data, 'result', 40)}", status)
        return Reply(Word.ACKNOWLEDGED, OK, http_status=status)
    if route.name == "cancel-symbol-order":
        return Reply(Word.ACKNOWLEDGED, OK, http_status=status)
    if target.scope not in looks.SCOPES:
        return Reply(Word.ACKNOWLEDGED, OK, http_status=status)
    if not target.is_named(word(data, "orderId"), word(data, "clientOid")):
        return Reply(Word.UNCLEAR, OK, OTHERS, status)
    return _acknowledged(data, status)


def _acknowledged(row: Mapping[str, Any], status: int) -> Reply:
    order_id, client_id = word(row, "orderId"), word(row, "clientOid")
    return Reply(
        Word.ACKNOWLEDGED,
        OK,
        http_status=status,
        order_id=order_id if looks.is_order_id(order_id) else "",
        client_order_id=safe_id(client_id),
    )


def _read_batch(targets: Sequence[Target], data: Any, status: int) -> list[Reply]:
    if not isinstance(data, dict):
        return [Reply(Word.UNCLEAR, OK, "an answer without data", status)] * len(targets)
    asked = [target.named_as for target in targets]
    said: dict[str, Reply] = {}
    replies = [(row, _acknowledged(row, status)) for row in rows_of(data.get("successList"))]
    replies += [(row, _refused_item(row, status)) for row in rows_of(data.get("failureList"))]
    for row, reply in replies:
        for key in _row_keys(row):
            if key in said and said[key].word is not reply.word:
                reply = Reply(Word.UNCLEAR, OK, "the answer says two things about this order", status)
            said[key] = reply
    if names_another(asked, said):
        return [Reply(Word.UNCLEAR, OK, NOT_ASKED, status)] * len(targets)
    missing = Reply(Word.UNCLEAR, OK, "the answer does not mention this order", status)
    return [said.get(key, missing) for key in asked]


def _row_keys(row: Mapping[str, Any]) -> list[str]:
    named = (("i", word(row, "orderId")), ("c", word(row, "clientOid")))
    return [f"{kind}:{id_}" for kind, id_ in named if id_]


def _refused_item(row: Mapping[str, Any], status: int) -> Reply:
    code, text = word(row, "errorCode", 16), word(row, "errorMsg")
    meant = word_of(code)
    if meant in (Word.SPLIT, Word.ACCOUNT, Word.CLOCK):
        meant = Word.UNCLEAR  # these make no sense for one item: look
    if meant is Word.FAILED:
        text = named_field(text, _FIELDS)
    return Reply(meant, code, text, status, notes=_known(code))
