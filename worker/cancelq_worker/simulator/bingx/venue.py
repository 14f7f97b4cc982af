"""BingX spot, v1: what every call passes through before it does anything, and the table of endpoints.

A call is counted against its IP address (the group of the endpoint, and the endpoint), its key, clock and signature
are checked, then the door of its UID to that endpoint, then it is counted against its UID, and only then read and
executed. No source states that order.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from cancelq_worker.simulator.bingx import codes
from cancelq_worker.simulator.bingx.ask import Ask, Params
from cancelq_worker.simulator.bingx.codes import Refusal
from cancelq_worker.simulator.bingx.deadman import Deadman
from cancelq_worker.simulator.bingx.doors import Doors
from cancelq_worker.simulator.bingx.listenkeys import ListenKeys
from cancelq_worker.simulator.bingx.placing import Placing
from cancelq_worker.simulator.bingx.queries import Queries
from cancelq_worker.simulator.bingx.signing import is_signed, sent_by
from cancelq_worker.simulator.bingx.trading import Trading
from cancelq_worker.simulator.core import Call, Core, Request
from cancelq_worker.simulator.faults import Reply, Target
from cancelq_worker.simulator.limits import Rule, Window
from cancelq_worker.simulator.orders import Account, Book, Right
from cancelq_worker.simulator.venue import SECOND_US, Endpoint, Route, Words, misbehave, routes_of

NAME = "bingx"
SPOT = "/openApi/spot/v1"
LISTEN_KEY = "/openApi/user/auth/userDataStream"

# What changes orders: all of it asks for the permission "Spot Trading", all but the switch is IP group 3.
TRADES = frozenset({"order", "batchOrders", "cancel", "cancelOrders", "cancelOpenOrders", "cancelAllAfter"})
GROUP_3 = TRADES - {"cancelAllAfter"}
# "Rate limit" of the documents, by IP address: public endpoints are group 1, of which only the group is counted.
PUBLIC_RULES: Final[Mapping[str, Rule]] = {
    "bingx/ip-group-1": Rule(500, 10 * SECOND_US),
    "bingx/ip-group-1-minute": Rule(1_000, 60 * SECOND_US),
}
GROUP_RULE = Rule(2_000, 10 * SECOND_US)
ENDPOINT_IP_RULE = Rule(300, 10 * SECOND_US)

DEFAULT_WINDOW_MS = 5_000
# What the fault `http_429` says; a fault `code:100410` has no colon behind its code, or a text.
HTTP_429 = f"{codes.TOO_MANY}:"


class Bingx:
    """The spot endpoints that trade, cancel and confirm, and the keys to the order stream."""

    name = NAME
    prefix = b"/openApi/"

    def __init__(self, core: Core) -> None:
        self._core = core
        self._trading = Trading(core)
        self._placing = Placing(core)
        self._queries = Queries(core)
        self._deadman = Deadman(core)
        self._listen_keys = ListenKeys(core)
        self._doors = Doors(core)
        self._routes = routes_of(NAME, self._endpoints())
        self.paths = frozenset(self._routes)
        core.forgetful += [self._deadman.forget, self._listen_keys.forget, self._doors.forget]

    def _endpoints(self) -> list[Endpoint[Ask]]:
        # Limits: "rate limitation by UID" of each endpoint's page. Public endpoints have none.
        trading, placing, queries, keys = self._trading, self._placing, self._queries, self._listen_keys
        return [
            Endpoint("POST", f"{SPOT}/trade/cancel", 5, trading.cancel),
            Endpoint("POST", f"{SPOT}/trade/cancelOrders", 2, trading.cancel_batch),
            Endpoint("POST", f"{SPOT}/trade/cancelOpenOrders", 2, trading.cancel_open),
            Endpoint("POST", f"{SPOT}/trade/cancelAllAfter", 2, self._deadman.cancel_all_after),
            Endpoint("POST", f"{SPOT}/trade/order", 5, placing.order),
            Endpoint("POST", f"{SPOT}/trade/batchOrders", 2, placing.batch),
            Endpoint("GET", f"{SPOT}/trade/query", 10, queries.query),
            Endpoint("GET", f"{SPOT}/trade/openOrders", 10, queries.open_orders),
            Endpoint("GET", f"{SPOT}/trade/historyOrders", 10, queries.history),
            Endpoint("GET", f"{SPOT}/trade/myTrades", 5, queries.my_trades),
            Endpoint("GET", f"{SPOT}/account/balance", 5, queries.balance),
            Endpoint("GET", "/openApi/wallets/v1/capital/config/getall", 5, queries.coins),
            Endpoint("GET", "/openApi/v1/account/apiPermissions", 2, queries.key_rights),
            Endpoint("POST", LISTEN_KEY, 2, keys.create),
            Endpoint("PUT", LISTEN_KEY, 2, keys.extend),
            Endpoint("DELETE", LISTEN_KEY, 2, keys.delete),
            Endpoint("GET", f"{SPOT}/server/time", 0, queries.time, private=False),
            Endpoint("GET", "/openApi/swap/v2/server/time", 0, queries.time, private=False),
            Endpoint("GET", f"{SPOT}/common/symbols", 0, queries.symbols, private=False),
            Endpoint("GET", "/openApi/swap/v2/quote/contracts", 0, queries.contracts, private=False),
            Endpoint("GET", "/openApi/cswap/v1/market/contracts", 0, queries.contracts, private=False),
        ]

    def rules(self) -> dict[str, Rule]:
        rules = {**PUBLIC_RULES, _group_bucket("2"): GROUP_RULE, _group_bucket("3"): GROUP_RULE}
        for route in self._routes.values():
            if route.endpoint.private:
                rules[route.bucket] = Rule(route.endpoint.limit, SECOND_US)
                rules[_ip_bucket(route.name)] = ENDPOINT_IP_RULE
        return rules

    def spell(self, base: str, quote: str) -> str:
        return f"{base}-{quote}"

    def owner_of(self, listen_key: str) -> Account | None:
        """Whose order stream that listen key opens; None if it is not valid (any more)."""
        return self._listen_keys.owner_of(listen_key)

    def lost(self, request: Request) -> Reply:
        """Captured with this code and text; one of BingX's own lists says 100404 instead."""
        refusal = Refusal(codes.PARAMETER, codes.NO_SUCH_PATH)
        return Reply(self._core.settings.bingx_error_status, self._at_the_door(refusal))

    def answer(self, request: Request, call: Call) -> Reply:
        route = self._routes[request.method, request.path]
        call.endpoint = route.name
        try:
            reply = self._admitted(route, request, call)
        except Refusal as refusal:
            call.code = refusal.code
            reply = Reply(self._core.settings.bingx_error_status, self._at_the_door(refusal))
        call.http_status = reply.status
        return reply

    def _admitted(self, route: Route[Ask], request: Request, call: Call) -> Reply:
        core = self._core
        if not self._address_admitted(route, call):
            return self._over_limit(call, codes.RATE_LIMITED, 429)
        account, params = self._caller(route, request)
        call.uid = account.uid
        window = None
        if route.endpoint.private:
            why = self._doors.why_closed(account.uid, route.name)
            if why:
                return self._over_limit(call, why)
            window = core.limiter.window(route.bucket, account.uid)
            if not window.admit(call.steady_us):
                why = self._doors.over_limit(account.uid, route.name)
                return self._headed(self._over_limit(call, why or codes.RATE_LIMITED), window)
        call.ids, call.symbol = _named(params)
        book = core.book(NAME, account.uid) if route.endpoint.private else _NO_BOOK
        ask = Ask(book, account, params, call)
        if core.faults:
            fault = core.faults.pick(Target(NAME, route.name, route.text_path, call.uid, call.ids))
            if fault is not None:
                return misbehave(core, fault, call, lambda: self._execute(route, ask, window), self._words(window))
        return self._execute(route, ask, window)

    def _address_admitted(self, route: Route[Ask], call: Call) -> bool:
        if route.endpoint.private:
            buckets = [_group_bucket("3" if route.name in GROUP_3 else "2"), _ip_bucket(route.name)]
        else:
            buckets = [*PUBLIC_RULES]
        return all(self._core.limiter.window(bucket, call.ip).admit(call.steady_us) for bucket in buckets)

    def _execute(self, route: Route[Ask], ask: Ask, window: Window | None) -> Reply:
        ask.call.executed = True
        try:
            data = route.endpoint.run(ask)
        except Refusal as refusal:
            ask.call.code = refusal.code
            if route.endpoint.private:
                self._doors.count_error(ask.call.uid, route.name, refusal.code)
            return self._headed(self._refused(refusal), window)
        ask.call.code = codes.OK
        if isinstance(data, Reply):
            return self._headed(data, window)
        return self._headed(Reply(200, orjson.dumps({"code": 0, "msg": "", "debugMsg": "", "data": data})), window)

    def _words(self, window: Window | None) -> Words:
        def say(said: str) -> Reply:
            code, _, text = said.partition(":")
            if code == codes.TOO_MANY:
                reply = self._too_many(text or codes.RATE_LIMITED, 429 if said == HTTP_429 else None)
            else:
                reply = self._refused(Refusal(code, text))
            return self._headed(reply, window)

        return Words(HTTP_429, codes.INVENTED, say)

    # ---- keys and signatures

    def _caller(self, route: Route[Ask], request: Request) -> tuple[Account, Params]:
        """Who calls, and with what. The listen key endpoints ask for a key only, public ones for nothing."""
        sent = sent_by(request)
        if not route.endpoint.private:
            return _NOBODY, sent.params
        key = request.headers.get(b"x-bx-apikey", b"").decode("latin-1")
        account = self._core.accounts.get((NAME, key))
        if account is None:
            raise Refusal(codes.KEY_WRONG)
        if route.text_path == LISTEN_KEY:
            return account, sent.params
        self._check_time(sent.params)
        if not sent.signature:
            raise Refusal(codes.SIGN_MISSING)
        if not is_signed(sent, account.secret):
            raise Refusal(codes.SIGN_WRONG)
        may_trade = Right.trade in account.rights and key not in self._core.settings.bingx_read_only_keys
        if route.name in TRADES and not may_trade:
            raise Refusal(codes.NO_PERMISSION)
        return account, sent.params

    def _check_time(self, params: Params) -> None:
        sent, window = params.get("timestamp", ""), params.get("recvWindow", "")
        if not sent:
            raise Refusal(codes.MISMATCH)
        if not _is_count(sent):
            raise Refusal(codes.TIMESTAMP_INVALID)
        allowed_ms = int(window) if _is_count(window) else DEFAULT_WINDOW_MS
        if abs(self._core.venue_us() // 1000 - int(sent)) > allowed_ms:
            raise Refusal(codes.MISMATCH)

    # ---- writing

    def _refused(self, refusal: Refusal) -> Reply:
        """The answer to a call that was read and cannot be done."""
        body = orjson.dumps({"code": _number(refusal.code), "msg": refusal.text, "debugMsg": ""})
        return Reply(self._core.settings.bingx_error_status, body)

    def _at_the_door(self, refusal: Refusal) -> bytes:
        """The answer to a call that was not even read has a time instead of a `debugMsg`, as in captures."""
        now_ms = self._core.venue_us() // 1000
        return orjson.dumps({"code": _number(refusal.code), "msg": refusal.text, "timestamp": now_ms})

    def _over_limit(self, call: Call, why: str, status: int | None = None) -> Reply:
        call.code = codes.TOO_MANY
        call.refused = True
        return self._too_many(why, status)

    def _too_many(self, why: str, status: int | None = None) -> Reply:
        refusal = Refusal(codes.TOO_MANY, why)
        return Reply(status or self._core.settings.bingx_limit_status, self._at_the_door(refusal))

    def _headed(self, reply: Reply, window: Window | None) -> Reply:
        """The reply with what is left of the UID's limit, where it has one."""
        remaining = None if window is None else window.remaining()
        if window is None or remaining is None or not self._core.settings.bingx_limit_headers:
            return reply
        frees_us = window.frees_us()
        left_ms = 0 if frees_us is None else max(0, -(-(frees_us - self._core.now_us) // 1000))
        epoch = self._core.settings.bingx_limit_expiry == "epoch"
        expire_ms = self._core.venue_us() // 1000 + left_ms if epoch else left_ms
        reply.headers = (
            (b"x-ratelimit-requests-remain", b"%d" % remaining),
            (b"x-ratelimit-requests-expire", b"%d" % expire_ms),
        )
        return reply


# Public endpoints know no account.
_NOBODY = Account(NAME, "", "", "", "")
_NO_BOOK = Book(NAME, "")


def _group_bucket(group: str) -> str:
    return f"{NAME}/ip-group-{group}"


def _ip_bucket(endpoint: str) -> str:
    return f"{NAME}/ip-{endpoint}"


def _is_count(value: Any) -> bool:
    return isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 15


def _number(code: str) -> int | str:
    return int(code) if code.isdecimal() else code


def _named(params: Params) -> tuple[list[str], str]:
    """The ids a call names, one per order, and its pair."""
    ids: list[str] = []
    for name in ("orderIds", "clientOrderIDs", "orderId", "clientOrderID"):
        value = params.get(name)
        if isinstance(value, str) and value:
            ids = [one.strip() for one in value.split(",")]
            break
    symbol = params.get("symbol")
    return ids, symbol if isinstance(symbol, str) else ""
