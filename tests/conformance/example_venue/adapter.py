"""The smallest venue that passes the suite: one cancel, one look-up, one list of open orders.

Its exchange is made up (`exchange.py`). What its papers would say: `POST /v1/cancel` takes one order and answers that
the request was accepted, never that it is done; `GET /v1/order` finds any order by either id, for ever; `GET /v1/open`
shows open orders, newest first, 50 a page, `before` an id. Ten cancels and twenty reads a second and account.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from cancelq_worker.venues import port
from cancelq_worker.venues.kind import AccountView, Place, VenueKind
from cancelq_worker.venues.port import Answer, Bucket, NextLook, Plan, Reply, Request, Route, Stage, Target, Unfit, Word
from cancelq_worker.venues.reading import epoch_ms, filled, payload, safe_id, word
from cancelq_worker.venues.sweeping import Manner, OpenOrder, OpenPage, kinds, progress

SECOND_US: Final = 1_000_000
PAGE: Final = 50
#: code → meaning. One that is not here is unclear, never a success.
CODES: Final = {
    "no_order": Word.GONE, "bad_pair": Word.FAILED, "bad_id": Word.FAILED, "busy": Word.AGAIN, "upgrade": Word.LATER,
    "too_many": Word.REFUSED, "bad_key": Word.ACCOUNT, "bad_sign": Word.ACCOUNT, "bad_time": Word.CLOCK,
}  # fmt: skip
STATES: Final = {
    "open": Word.OPEN, "partly": Word.OPEN, "done": Word.FILLED, "void": Word.CANCELLED, "dead": Word.CLOSED,
}  # fmt: skip
ADDRESS: Final = ("example",)
MANNER: Final = Manner(sizes={})
_ORDER_ID = re.compile(r"[0-9]{1,32}", re.ASCII)


class Example:
    """One account. Holds its key, and no other state."""

    name = "example"
    routes: tuple[Route, ...] = (
        Route("cancel", Stage.CANCEL, ("order", "sweep-order"), "cancel", address=ADDRESS),
        Route("order", Stage.LOOK, ("order",), "read", address=ADDRESS),
        Route("open", Stage.LOOK, ("sweep-order",), "read", address=ADDRESS),
    )
    buckets: tuple[Bucket, ...] = (Bucket("cancel", 10, SECOND_US), Bucket("read", 20, SECOND_US))
    address_buckets: tuple[Bucket, ...] = (Bucket("example", 100, SECOND_US),)
    other_address: tuple[str, ...] = ADDRESS
    probe_route = "open"
    time_address: tuple[str, ...] = ()
    errors_us = 0
    time_requests: tuple[Request, ...] = (Request("GET", "/v1/time"),)
    timing = port.Timing(gap_us=SECOND_US, look_after_us=30_000, patience_us=3 * SECOND_US)
    stream: port.OrderStream | None = None

    def __init__(self, account: AccountView) -> None:
        self._account = account

    def admit(self, fields: Mapping[str, str]) -> Plan | Unfit:
        symbol, scope, target = fields.get("symbol"), fields["scope"], Target(fields, {})
        if symbol is not None and not re.fullmatch(r"[a-z0-9]{1,12}_[a-z0-9]{1,12}", symbol):
            right = re.sub(r"[-_]?(usdt|btc)$", r"_\1", symbol.lower())
            return Unfit("symbol", f"symbol: Example spells pairs like btc_usdt; {symbol!r} should be {right!r}")
        if scope in ("tpsl", "stop"):
            return Unfit("scope", f"scope: Example has no {scope} orders; send scope order")
        if kinds(target) != ["order"]:
            return Unfit("kinds", "kinds: Example has normal orders only; leave it out")
        if not _ORDER_ID.fullmatch(fields.get("order_id", "0")):
            return Unfit("order_id", "order_id: Example's ids are digits; put your own id into client_order_id")
        if "only_if" in fields:
            return Unfit("only_if", "only_if: only BingX offers it; leave it out on an Example lane")
        return Plan("order", "order", self.order_keys(target)) if scope == "order" else MANNER.plan(target)

    def order_keys(self, target: Target) -> tuple[str, ...]:
        named = (("i", target.order_id), (f"c:{target.symbol}", target.only_client_id))
        return tuple(f"{how}:{value}" for how, value in named if value)

    def cancel_class(self, target: Target) -> str:
        return "order" if target.scope == "order" else MANNER.cancel_class(target)

    def next_look(self, target: Target) -> NextLook:
        if target.scope != "order":
            return NextLook(MANNER.look_class(target))
        return NextLook("order", done=target.notes.get("abs", {}).get("order", 0) >= 2)

    def told_limit(self, answer: Answer) -> int | None:
        return None

    def sweep_named(self, route: str, target: Target) -> int:
        return len(MANNER.due(route, target))

    def endpoint(self, route: str) -> str:
        return f"/v1/{route}"

    def encode(self, route: Route, targets: Sequence[Target]) -> Request:
        (target,) = targets  # ValueError for none, and for more than one
        if route.name == "cancel":
            return Request("POST", "/v1/cancel", body=orjson.dumps(_order_ref(target)))
        if route.name == "order":
            return Request("GET", "/v1/order", urlencode(_order_ref(target)))
        if target.scope != "account" and not target.symbol:
            raise ValueError("the open list must name its pair")
        params = {"pair": target.symbol, "before": progress(target).get("at")}
        return Request("GET", "/v1/open", urlencode({name: value for name, value in params.items() if value}))

    def sign(self, request: Request, now_ms: int) -> port.Signed:
        covered = f"{now_ms}{request.method}{request.path}{request.query}".encode() + request.body
        secret = self._account.api_secret.get_secret_value().encode()
        sign = hmac.new(secret, covered, hashlib.sha256).hexdigest()
        key = self._account.api_key.get_secret_value()
        return port.Signed(request, {"X-Key": key, "X-Time": str(now_ms), "X-Sign": sign})

    def decode(self, route: Route, targets: Sequence[Target], answer: Answer) -> list[Reply]:
        (target,), body = targets, payload(answer) or {}
        refused = _refusal(answer, body)
        if refused and route.stage is Stage.LOOK:
            kept = refused.word in (*port.ABOUT_THE_CALL, Word.LATER)
            absent = refused.word is Word.GONE and route.name == "order"  # it keeps all there ever were
            refused.word = refused.word if kept else Word.ABSENT if absent else Word.UNCLEAR
            refused.place = route.name
        if refused:
            return [refused]
        said = {"cancel": _acknowledged, "order": _sighting, "open": _page}[route.name]
        return [said(target, body)]

    def read_time(self, answer: Answer) -> int | None:
        return epoch_ms(word(payload(answer) or {}, "now_ms"))

    def probe_request(self) -> Request:
        return Request("GET", "/v1/open")

    def read_probe(self, answer: Answer) -> Reply:
        return _refusal(answer, payload(answer) or {}) or Reply(Word.OPEN, "ok", http_status=answer.status)

    def rights_request(self) -> Request | None:
        return None

    def read_rights(self, answer: Answer) -> port.KeyRights | Reply:
        return port.KeyRights(None, None)


def _order_ref(target: Target) -> dict[str, str]:
    """The pair and exactly one id: of the intent, or of the next order a sweep found."""
    if target.scope != "order":
        row = MANNER.due("cancel", target)[0]
        return {"pair": row["symbol"], "id": row["id"]}
    name, value = ("id", target.order_id) if target.order_id else ("mine", target.client_order_id)
    if not target.symbol or not value:
        raise ValueError("a call must name an order and its pair")
    return {"pair": target.symbol, name: value}


def _refusal(answer: Answer, body: Mapping[str, Any]) -> Reply | None:
    """What stands against the whole call; None only for `ok` under HTTP 200."""
    code, text = word(body, "code", 16), word(body, "text") or f"HTTP {answer.status}"
    if code == "ok" and answer.status == 200:
        return None
    meaning = CODES.get(code, Word.UNCLEAR) if answer.status < 500 else Word.UNCLEAR
    return Reply(Word.REFUSED if answer.status == 429 else meaning, code, text, answer.status)


def _is_about(target: Target, row: Mapping[str, Any]) -> bool:
    """Whether a row has the id the order was named by, and not another's client id."""
    return target.may_bear(word(row, "mine")) and all(
        row.get(name) == wanted for name, wanted in _order_ref(target).items() if name != "pair"
    )


def _acknowledged(target: Target, body: Mapping[str, Any]) -> Reply:
    if not _is_about(target, body):
        return Reply(Word.UNCLEAR, "ok", "the answer speaks of another order", 200)
    return Reply(Word.ACKNOWLEDGED, "ok", http_status=200, order_id=safe_id(word(body, "id")))


def _sighting(target: Target, body: Mapping[str, Any]) -> Reply:
    row = body.get("order")
    if not isinstance(row, dict) or not _is_about(target, row):
        return Reply(Word.UNCLEAR, text="an answer that does not speak of this order", place="order")
    state, traded, mine = word(row, "state", 40), filled(word(row, "traded")), safe_id(word(row, "mine"))
    meaning = STATES.get(state, Word.UNCLEAR)
    return Reply(meaning, "ok", "", 200, safe_id(word(row, "id")), mine, state, traded, place="order")


def _page(target: Target, body: Mapping[str, Any]) -> Reply:
    """A page of the open list. One row that cannot be read spoils it: it must neither be skipped nor cancelled."""
    rows, at = body.get("orders"), progress(target).get("at") or 10**32
    if not isinstance(rows, list) or not all(map(_can_be_named, rows)):
        return Reply(Word.UNCLEAR, text="an answer without a list that can be read", place="open")
    if any(int(word(row, "id")) >= int(at) for row in rows):
        return Reply(Word.UNCLEAR, text="a page that ignores where it was asked to begin", place="open")
    found = [_open_order(row) for row in rows]
    return MANNER.read("open", target, OpenPage(found, found[-1].order_id if len(found) >= PAGE else ""))


def _can_be_named(row: Any) -> bool:
    return isinstance(row, dict) and bool(_ORDER_ID.fullmatch(word(row, "id"))) and bool(word(row, "pair"))


def _open_order(row: Mapping[str, Any]) -> OpenOrder:
    return OpenOrder(word(row, "id"), word(row, "mine"), word(row, "pair"), "order", epoch_ms(word(row, "made_ms")))


KIND: Final = VenueKind(Place(base_url="https://api.example", ws_url=None, batch_most=1), Example, Example.buckets, ())
