"""Bybit spot, v5: what every call passes through before it does anything, and the table of endpoints.

A call is counted against its IP address, its clock, key and signature are checked, it is counted against its UID,
and only then read and executed; in a batch every order counts for itself, so it is read first. Business errors are
told with HTTP 200 and a `retCode`.
"""

import hmac
from typing import Any
from urllib.parse import parse_qsl

import orjson

from cancelq_worker.simulator.bybit import codes
from cancelq_worker.simulator.bybit.about import About
from cancelq_worker.simulator.bybit.ask import Answer, Ask, Params
from cancelq_worker.simulator.bybit.codes import Refusal, written
from cancelq_worker.simulator.bybit.queries import Queries
from cancelq_worker.simulator.bybit.trading import BATCH_MOST, Trading
from cancelq_worker.simulator.core import Call, Core, Request
from cancelq_worker.simulator.faults import HTML, JSON, Reply, Target
from cancelq_worker.simulator.limits import Rule, Window
from cancelq_worker.simulator.orders import Account, Book, Right
from cancelq_worker.simulator.venue import SECOND_US, Endpoint, Route, Words, misbehave, routes_of

NAME = "bybit"
IP_BUCKET = "bybit/ip"
# "600 requests within a 5-second window per IP", then at least 10 minutes of silence (Bybit's rate limit page).
IP_RULE = Rule(600, 5_000_000, 600_000_000)
PLAIN_TEXT = b"text/plain; charset=utf-8"
TOO_FREQUENT = b"access too frequent"
FORBIDDEN_PAGE = b"<html><head><title>403 Forbidden</title></head><body><center><h1>403</h1></center></body></html>"
DEFAULT_WINDOW_MS = 5_000
# "server_time - recv_window <= timestamp < server_time + 1000" (Bybit's guide).
MOST_AHEAD_MS = 1_000
# Batches take one unit of their limit for each order.
COUNTS_ORDERS = frozenset({"cancel-batch", "create-batch"})


class Bybit:
    """The spot endpoints that trade, cancel and confirm, of a unified account."""

    name = NAME
    prefix = b"/v5/"

    def __init__(self, core: Core) -> None:
        self._core = core
        self._trading = Trading(core)
        self._queries = Queries(core)
        self._about = About(core)
        self._routes = routes_of(NAME, self._endpoints())
        self.paths = frozenset(self._routes)

    def _endpoints(self) -> list[Endpoint[Ask]]:
        # Limits: Bybit's rate limit page, spot, without a VIP level; 50 where it names none.
        trading, queries, about = self._trading, self._queries, self._about
        return [
            Endpoint("POST", "/v5/order/cancel", 20, trading.cancel),
            Endpoint("POST", "/v5/order/cancel-batch", 20, trading.cancel_batch),
            Endpoint("POST", "/v5/order/cancel-all", 20, trading.cancel_all),
            Endpoint("POST", "/v5/order/create", 20, trading.create),
            Endpoint("POST", "/v5/order/create-batch", 20, trading.create_batch),
            Endpoint("GET", "/v5/order/realtime", 50, queries.realtime),
            Endpoint("GET", "/v5/order/history", 50, queries.history),
            Endpoint("GET", "/v5/execution/list", 50, queries.executions, called="execution-list"),
            Endpoint("GET", "/v5/user/query-api", 10, about.key_info),
            Endpoint("GET", "/v5/account/info", 50, about.account_info, called="account-info"),
            Endpoint("GET", "/v5/asset/coin/query-info", 5, about.coins, called="coin-info"),
            Endpoint("GET", "/v5/market/time", 50, about.time, private=False),
            Endpoint("GET", "/v5/market/instruments-info", 50, about.instruments, private=False),
        ]

    def rules(self) -> dict[str, Rule]:
        limits = {route.bucket: Rule(route.endpoint.limit, SECOND_US) for route in self._routes.values()}
        return {IP_BUCKET: IP_RULE, **limits}

    def spell(self, base: str, quote: str) -> str:
        return base + quote

    def lost(self, request: Request) -> Reply:
        return self._refusal(Refusal(codes.NO_ROUTE), status=404)

    def answer(self, request: Request, call: Call) -> Reply:
        route = self._routes[request.method, request.path]
        call.endpoint = route.name
        window: Window | None = None
        try:
            self._pass_the_gate(request, call)
            account = self._authentic(route, request) if route.endpoint.private else None
            call.uid = account.uid if account else ""
            window = self._core.limiter.window(route.bucket, call.uid if account else call.ip)
            reply = self._run(route, self._let_in(route, request, call, account, window))
        except _Turned as turned:
            reply = turned.reply
        except Refusal as refusal:
            call.code = refusal.code
            reply = self._refusal(refusal)
        call.http_status = reply.status
        return reply if window is None else self._headed(reply, window, call)

    # ---- the way in

    def _pass_the_gate(self, request: Request, call: Call) -> None:
        """What the address has to pass, before anybody looks at the call."""
        if not self._core.limiter.window(IP_BUCKET, call.ip).admit(call.steady_us):
            call.refused = True
            call.code = codes.IP_BANNED
            raise _Turned(_too_frequent())
        if request.method == "GET" and request.body:
            # "Do not send a body with a GET request": one of the documented causes of a 403.
            raise _Turned(Reply(403, FORBIDDEN_PAGE, HTML))

    def _let_in(self, route: Route[Ask], request: Request, call: Call, account: Account | None, window: Window) -> Ask:
        """Counted and read."""
        if route.name not in COUNTS_ORDERS:
            _admit(window, call)
        book = self._core.book(NAME, account.uid) if account else _NO_BOOK
        ask = Ask(book, account or _NOBODY, _read(route, request), call)
        call.ids, call.symbol = _named(ask.params)
        if route.name in COUNTS_ORDERS:
            self._admit_orders(ask, window)
        return ask

    def _admit_orders(self, ask: Ask, window: Window) -> None:
        """One unit for each order. What is no batch that can be worked on takes one as a whole."""
        items = ask.params.get("request")
        if not isinstance(items, list) or not 1 <= len(items) <= BATCH_MOST:
            _admit(window, ask.call)
            return
        ask.room = [window.admit(ask.call.steady_us) for _ in items]
        ask.call.refused = not all(ask.room)
        ask.call.failed_items += ask.room.count(False)

    def _authentic(self, route: Route[Ask], request: Request) -> Account:
        headers, settings = request.headers, self._core.settings
        key = headers.get(b"x-bapi-api-key", b"")
        signature = headers.get(b"x-bapi-sign", b"")
        timestamp = headers.get(b"x-bapi-timestamp", b"")
        recv_window = headers.get(b"x-bapi-recv-window", b"")
        if not (key and signature and _is_number(timestamp)) or not (_is_number(recv_window) or not recv_window):
            raise Refusal(codes.PARAMETER, _missing(timestamp, key, signature))
        self._check_clock(int(timestamp), int(recv_window or DEFAULT_WINDOW_MS))
        account = self._core.accounts.get((NAME, key.decode("latin-1")))
        if account is None or settings.bybit_environment == ("main" if account.demo else "demo"):
            raise Refusal(codes.KEY_INVALID)
        signed = timestamp + key + recv_window + (request.body if route.posts else request.query)
        right = hmac.digest(account.secret.encode(), signed, "sha256").hex().encode()
        if not hmac.compare_digest(right, signature):
            raise Refusal(codes.SIGN_WRONG, signed.decode("utf-8", "replace"))
        may_trade = Right.trade in account.rights and account.key not in settings.bybit_read_only_keys
        if route.posts and not may_trade:
            raise Refusal(codes.PERMISSION)
        return account

    def _check_clock(self, timestamp_ms: int, window_ms: int) -> None:
        now_ms = self._core.venue_us() // 1000
        if not now_ms - window_ms <= timestamp_ms < now_ms + MOST_AHEAD_MS:
            raise Refusal(
                codes.TIME_WINDOW,
                f"req_timestamp[{timestamp_ms}],server_timestamp[{now_ms}],recv_window[{window_ms}]",
            )

    # ---- executing and answering

    def _run(self, route: Route[Ask], ask: Ask) -> Reply:
        core, call = self._core, ask.call
        if core.faults:
            fault = core.faults.pick(Target(NAME, route.name, route.text_path, call.uid, call.ids))
            if fault is not None:
                words = Words(codes.PLATFORM, codes.INVENTED, self._said)
                return misbehave(core, fault, call, lambda: self._execute(route, ask), words)
        return self._execute(route, ask)

    def _execute(self, route: Route[Ask], ask: Ask) -> Reply:
        ask.call.executed = True
        try:
            answer: Answer = route.endpoint.run(ask)
        except Refusal as refusal:
            ask.call.code = refusal.code
            return self._refusal(refusal)
        ask.call.code = codes.OK
        return Reply(200, self._envelope(codes.OK, "OK", answer.result, answer.ext or {}))

    def _said(self, code: str) -> Reply:
        if code == codes.IP_BANNED:
            return _too_frequent()
        return self._refusal(Refusal(code), status=429 if code == codes.PLATFORM else 200)

    def _refusal(self, refusal: Refusal, status: int = 200) -> Reply:
        return Reply(status, self._envelope(refusal.code, refusal.text, {}, {}))

    def _envelope(self, code: str, told: str, result: Any, ext: Any) -> bytes:
        return orjson.dumps(
            {
                "retCode": written(code),
                "retMsg": told,
                "result": result,
                "retExtInfo": ext,
                "time": self._core.venue_us() // 1000,
            }
        )

    def _headed(self, reply: Reply, window: Window, call: Call) -> Reply:
        """With the headers of the limit, unless the answer is a page of some gateway."""
        resume = reply.resume
        if resume is not None:
            reply.resume = lambda: self._headed(resume(), window, call)
        elif reply.content_type == JSON and self._core.settings.bybit_limit_headers:
            reply.headers = (*reply.headers, *self._limit_headers(window, call))
        return reply

    def _limit_headers(self, window: Window, call: Call) -> list[tuple[bytes, bytes]]:
        """The time is when the limit resets for a call that was over it, "otherwise just the current timestamp"."""
        remaining = window.remaining()
        if remaining is None:
            return []
        reset_us = self._core.venue_us()
        frees_us = window.frees_us()
        if call.refused and frees_us is not None:
            reset_us += max(0, frees_us - self._core.now_us)
        return [
            (b"x-bapi-limit", b"%d" % (window.rule.limit or 0)),
            (b"x-bapi-limit-status", b"%d" % remaining),
            (b"x-bapi-limit-reset-timestamp", b"%d" % -(-reset_us // 1000)),
        ]


class _Turned(Exception):
    """The call is answered with a page instead of an envelope."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


# Public endpoints know no account.
_NOBODY = Account(NAME, "", "", "", "")
_NO_BOOK = Book(NAME, "")


def _admit(window: Window, call: Call) -> None:
    if not window.admit(call.steady_us):
        call.refused = True
        raise Refusal(codes.TOO_MANY)


def _read(route: Route[Ask], request: Request) -> Params:
    if not route.posts:
        return dict(parse_qsl(request.query.decode("latin-1"), keep_blank_values=False))
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        raise Refusal(codes.PARAMETER, ": the body is no JSON") from None
    if not isinstance(body, dict):
        raise Refusal(codes.PARAMETER, ": the body is no object")
    return body


def _too_frequent() -> Reply:
    return Reply(403, TOO_FREQUENT, PLAIN_TEXT)


def _is_number(value: bytes) -> bool:
    return value.isdigit() and len(value) <= 15


def _missing(timestamp: bytes, key: bytes, signature: bytes) -> str:
    held = (timestamp, key, signature)
    names = ("apiTimestamp", "apiKey", "apiSignature")
    listed = " ".join(f"{name}[{value.decode('latin-1')}]" for name, value in zip(names, held, strict=True))
    return f": empty value: {listed}: openapi sign params error!"


def _named(params: Params) -> tuple[list[str], str]:
    """The ids a call names, one per order, and its pair."""
    symbol = params.get("symbol")
    items = params.get("request")
    named = items if isinstance(items, list) else (params,)
    ids = [item.get("orderId") or item.get("orderLinkId") for item in named if isinstance(item, dict)]
    return [str(one) for one in ids if one], symbol if isinstance(symbol, str) else ""
