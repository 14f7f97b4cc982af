"""Bitget spot, classic v2: what every call passes through before it does anything, and the table of
endpoints.

A call is counted against its IP address, its key and signature are checked, it is counted against its UID,
and only then read and executed. The order of the key checks follows captures: a wrong environment (40099) is
told before the account mode (40085), and that before the signature is looked at.
"""

import hmac
from base64 import b64encode
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

import orjson

from cancelq_worker.simulator.bitget import codes
from cancelq_worker.simulator.bitget.ask import Ask, Params
from cancelq_worker.simulator.bitget.codes import Refusal, text_of
from cancelq_worker.simulator.bitget.queries import Queries
from cancelq_worker.simulator.bitget.trading import Trading
from cancelq_worker.simulator.core import Call, Core, Request
from cancelq_worker.simulator.faults import Reply, Target
from cancelq_worker.simulator.limits import Rule, Window
from cancelq_worker.simulator.orders import Account, Book, Right
from cancelq_worker.simulator.venue import SECOND_US, Endpoint, Route, Words, misbehave, routes_of

NAME = "bitget"
IP_BUCKET = "bitget/ip"
# "The overall rate limit is 6000/IP/Min", and it takes 5 minutes to recover (Bitget's FAQ, Q10).
IP_RULE = Rule(6_000, 60_000_000, 300_000_000)
TIMESTAMP_WINDOW_MS = 30_000
LONGEST_WINDOW_MS = 60_000


class Bitget:
    """The classic spot endpoints that trade, cancel and confirm."""

    name = NAME
    prefix = b"/api/"

    def __init__(self, core: Core) -> None:
        self._core = core
        self._trading = Trading(core)
        self._queries = Queries(core)
        self._routes = routes_of(NAME, self._endpoints())
        self.paths = frozenset(self._routes)

    def _endpoints(self) -> list[Endpoint[Ask]]:
        # Limits: the "Frequency limit" of each endpoint's page.
        trading, queries = self._trading, self._queries
        trade = "/api/v2/spot/trade"
        return [
            Endpoint("POST", f"{trade}/cancel-order", 10, trading.cancel_order),
            Endpoint("POST", f"{trade}/batch-cancel-order", 10, trading.batch_cancel),
            Endpoint("POST", f"{trade}/cancel-symbol-order", 5, trading.cancel_symbol),
            Endpoint("POST", f"{trade}/cancel-plan-order", 20, trading.cancel_plan),
            Endpoint("POST", f"{trade}/batch-cancel-plan-order", 5, trading.batch_cancel_plan),
            Endpoint("POST", f"{trade}/place-order", 10, trading.place_order),
            Endpoint("POST", f"{trade}/batch-orders", 5, trading.batch_place),
            Endpoint("POST", f"{trade}/place-plan-order", 20, trading.place_plan),
            Endpoint("GET", f"{trade}/orderInfo", 20, queries.order_info),
            Endpoint("GET", f"{trade}/unfilled-orders", 20, queries.unfilled),
            Endpoint("GET", f"{trade}/history-orders", 20, queries.history),
            Endpoint("GET", f"{trade}/current-plan-order", 20, queries.current_plans),
            Endpoint("GET", f"{trade}/history-plan-order", 20, queries.history_plans),
            Endpoint("GET", f"{trade}/plan-sub-order", 20, queries.plan_children),
            Endpoint("GET", f"{trade}/fills", 10, queries.fills),
            Endpoint("GET", "/api/v2/spot/account/info", 1, queries.account_info),
            Endpoint("GET", "/api/v2/public/time", 20, queries.time, private=False),
            Endpoint("GET", "/api/v2/spot/public/symbols", 20, queries.symbols, private=False),
            Endpoint("GET", "/api/v2/spot/public/coins", 3, queries.coins, private=False),
            Endpoint("GET", "/api/v2/margin/currencies", 10, queries.margin_currencies, private=False),
        ]

    def rules(self) -> dict[str, Rule]:
        limits = {route.bucket: Rule(route.endpoint.limit, SECOND_US) for route in self._routes.values()}
        return {IP_BUCKET: IP_RULE, **limits}

    def spell(self, base: str, quote: str) -> str:
        return base + quote

    def lost(self, request: Request) -> Reply:
        return self._refusal(Refusal(codes.URL_UNKNOWN), _english(request), status=404)

    def answer(self, request: Request, call: Call) -> Reply:
        route = self._routes[request.method, request.path]
        call.endpoint = route.name
        english = _english(request)
        try:
            reply, window = self._admitted(route, request, call, english)
        except Refusal as refusal:
            call.code = refusal.code
            reply, window = self._refusal(refusal, english), None
        call.http_status = reply.status
        if window is not None and self._core.settings.bitget_remain_header:
            remaining = window.remaining()
            if remaining is not None:
                reply.headers = (*reply.headers, (b"x-mbx-used-remain-limit", b"%d" % remaining))
        return reply

    def _admitted(self, route: Route[Ask], request: Request, call: Call, english: bool) -> tuple[Reply, Window | None]:
        core = self._core
        if not core.limiter.window(IP_BUCKET, call.ip).admit(call.steady_us):
            return self._over_limit(call), None
        if route.endpoint.private:
            account = self._authentic(request)
            if route.posts and Right.trade not in account.rights:
                raise Refusal(codes.NO_PERMISSION)
            call.uid = account.uid
            book = core.book(NAME, account.uid)
            window = core.limiter.window(route.bucket, account.uid)
        else:
            account, book = _NOBODY, _NO_BOOK
            window = core.limiter.window(route.bucket, call.ip)
        if not window.admit(call.steady_us):
            return self._over_limit(call), window
        params = self._read(route, request)
        call.ids, call.symbol = _named(params)
        ask = Ask(book, account, params, call, english)
        if core.faults:
            fault = core.faults.pick(Target(NAME, route.name, route.text_path, call.uid, call.ids))
            if fault is not None:
                return misbehave(core, fault, call, lambda: self._execute(route, ask), self._words(english)), window
        return self._execute(route, ask), window

    def _execute(self, route: Route[Ask], ask: Ask) -> Reply:
        ask.call.executed = True
        try:
            data = route.endpoint.run(ask)
        except Refusal as refusal:
            ask.call.code = refusal.code
            return self._refusal(refusal, ask.english)
        ask.call.code = codes.OK
        return Reply(200, self._envelope(codes.OK, "success", data))

    def _words(self, english: bool) -> Words:
        def say(code: str) -> Reply:
            return self._too_many() if code == codes.TOO_MANY else self._refusal(Refusal(code), english)

        return Words(codes.TOO_MANY, codes.INVENTED, say)

    # ---- keys and signatures

    def _authentic(self, request: Request) -> Account:
        headers = request.headers
        key = headers.get(b"access-key", b"")
        if not key:
            raise Refusal(codes.KEY_EMPTY)
        signature = headers.get(b"access-sign", b"")
        if not signature:
            raise Refusal(codes.SIGN_EMPTY)
        passphrase = headers.get(b"access-passphrase", b"")
        if not passphrase:
            raise Refusal(codes.PASSPHRASE_EMPTY)
        timestamp = headers.get(b"access-timestamp", b"")
        if not timestamp.isdigit() or len(timestamp) > 15:
            raise Refusal(codes.TIMESTAMP_BAD)
        account = self._core.accounts.get((NAME, key.decode("latin-1")))
        if account is None:
            raise Refusal(codes.KEY_UNKNOWN if key.startswith(b"bg_") else codes.KEY_INVALID)
        if account.demo != (headers.get(b"paptrading") == b"1"):
            raise Refusal(codes.WRONG_ENVIRONMENT)
        if account.uta:
            raise Refusal(codes.UNIFIED_ACCOUNT)
        if abs(int(timestamp) - self._core.venue_us() // 1000) > TIMESTAMP_WINDOW_MS:
            raise Refusal(codes.TIMESTAMP_EXPIRED)
        if not self._signed(account, timestamp, request, signature):
            raise Refusal(codes.SIGN_WRONG)
        if not hmac.compare_digest(passphrase, account.passphrase.encode()):
            raise Refusal(codes.PASSPHRASE_WRONG)
        return account

    def _signed(self, account: Account, timestamp: bytes, request: Request, signature: bytes) -> bool:
        secret = account.secret.encode()
        head = timestamp + request.method.encode() + request.path
        if not request.query:
            return _covers(secret, head + request.body, signature)
        which = self._core.settings.bitget_query_signed
        # The documents sign the query "in the request URL", Bitget's samples its values before encoding.
        forms = []
        if which != "decoded":
            forms.append(request.query)
        if which == "decoded" or (which == "either" and b"%" in request.query):
            forms.append(unquote_to_bytes(request.query))
        return any(_covers(secret, head + b"?" + form + request.body, signature) for form in forms)

    # ---- reading and writing

    def _read(self, route: Route[Ask], request: Request) -> Params:
        if not route.posts:
            params: Params = dict(parse_qsl(request.query.decode("latin-1"), keep_blank_values=False))
            self._check_window(params)
            return params
        if not request.headers.get(b"content-type", b"").lower().startswith(b"application/json"):
            raise Refusal(codes.CONTENT_TYPE)
        try:
            body = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            raise Refusal(codes.PARAMETER_FAILED) from None
        if not isinstance(body, dict):
            raise Refusal(codes.PARAMETER_FAILED)
        return body

    def _check_window(self, params: Params) -> None:
        window, sent = params.get("receiveWindow", ""), params.get("requestTime", "")
        if not (window.isdecimal() and sent.isdecimal()):
            return
        if int(window) >= LONGEST_WINDOW_MS:
            raise Refusal(codes.WINDOW_TOO_LONG)
        if abs(self._core.venue_us() // 1000 - int(sent)) > int(window):
            raise Refusal(codes.WINDOW_PASSED)

    def _envelope(self, code: str, text: str, data: Any) -> bytes:
        return orjson.dumps({"code": code, "msg": text, "requestTime": self._core.venue_us() // 1000, "data": data})

    def _refusal(self, refusal: Refusal, english: bool, status: int = 400) -> Reply:
        text = text_of(refusal.code, refusal.about, english)
        return Reply(status, self._envelope(refusal.code, text, None))

    def _over_limit(self, call: Call) -> Reply:
        call.code = codes.TOO_MANY
        call.refused = True
        return self._too_many()

    def _too_many(self) -> Reply:
        return Reply(429, self._envelope(codes.TOO_MANY, "Too Many Requests", None))


# Public endpoints know no account.
_NOBODY = Account(NAME, "", "", "", "")
_NO_BOOK = Book(NAME, "")


def _covers(secret: bytes, message: bytes, signature: bytes) -> bool:
    return hmac.compare_digest(b64encode(hmac.digest(secret, message, "sha256")), signature)


def _english(request: Request) -> bool:
    return request.headers.get(b"locale", b"").lower() == b"en-us"


def _named(params: Params) -> tuple[list[str], str]:
    """The ids a call names, one per order, and its pair."""
    symbol = params.get("symbol")
    items = params.get("orderList")
    named = items if isinstance(items, list) else (params,)
    ids = [item.get("orderId") or item.get("clientOid") for item in named if isinstance(item, dict)]
    if not ids[-1:] or ids[-1] is None:
        ids.append(params.get("planOrderId"))
    return [str(one) for one in ids if one], symbol if isinstance(symbol, str) else ""
