"""What the three venues say, as far as cancels and looks by order id go. Signatures are not checked here.

Shapes: the venues' documentation of the endpoints named in `rules.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import orjson

from rate.book import Account

PAGE = 100


@dataclass(slots=True)
class Request:
    """One HTTP request. Header names are in small letters."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """A request as its venue understands it. `ids`: the orders it names."""

    venue: str
    endpoint: str
    account: str
    params: Mapping[str, Any]
    ids: tuple[str, ...]


@dataclass(slots=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Room:
    """What the endpoint's limit leaves: units this call may use, units left after it, the limit, and when the window's
    oldest unit is forgotten (venue ms)."""

    granted: int
    left: int
    limit: int
    reset_ms: int


def read(request: Request) -> Call | None:
    """None for a path of no venue."""
    endpoint = request.path.rpartition("/")[2]
    params: dict[str, Any] = dict(parse_qsl(request.query, keep_blank_values=True))
    if request.body:
        params |= orjson.loads(request.body)
    if request.path.startswith("/api/v2/"):
        named = [item.get("orderId", "") for item in params.get("orderList", [params])]
        return Call("bitget", endpoint, _account(request, "access-key"), params, _given(named))
    if request.path.startswith("/v5/"):
        named = [item.get("orderId", "") for item in params.get("request", [params])]
        return Call("bybit", endpoint, _account(request, "x-bapi-api-key"), params, _given(named))
    if request.path.startswith("/openApi/"):
        named = str(params.get("orderIds", params.get("orderId", ""))).split(",")
        return Call("bingx", endpoint, _account(request, "x-bx-apikey"), params, _given(named))
    return None


def _account(request: Request, header: str) -> str:
    return request.headers.get(header, "").removeprefix("key-")


def _given(named: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(name) for name in named if name)


def answer(call: Call, account: Account, now_ms: int, room: Room) -> Answer:
    """Carries the call out, for as many of its orders as `room` grants."""
    if call.endpoint == "time":
        return _time(call, now_ms)
    match call.venue:
        case "bitget":
            answered = _bitget(call, account, now_ms)
            answered.headers["x-mbx-used-remain-limit"] = str(room.left)
        case "bybit":
            answered = _bybit(call, account, now_ms, room)
            answered.headers |= _bybit_headers(room, now_ms)
        case _:
            answered = _bingx(call, account, now_ms)
            answered.headers["X-RateLimit-Requests-Remain"] = str(room.left)
            answered.headers["X-RateLimit-Requests-Expire"] = str(room.reset_ms)
    return answered


def _time(call: Call, now_ms: int) -> Answer:
    match call.venue:
        case "bitget":
            return _bitget_ok({"serverTime": str(now_ms)}, now_ms)
        case "bybit":
            told = {"timeSecond": str(now_ms // 1000), "timeNano": str(now_ms * 1_000_000)}
            return _bybit_ok(told, {}, now_ms)
        case _:
            return _bingx_ok({"serverTime": now_ms})


def refusal(call: Call, kind: str, now_ms: int, until_ms: int, limit: int) -> Answer:
    """What the venue says instead of carrying a call out. `kind`: `limit`, as for one call too many; `403`, `418`."""
    if kind == "403":
        return Answer(403, b"access too frequent", {"Content-Type": "text/plain"})
    if kind == "418":
        return _json(418, {"code": 100410, "msg": "banned", "data": None})
    match call.venue:
        case "bitget":
            body = {"code": "429", "msg": "Too Many Requests", "requestTime": now_ms, "data": None}
            return _json(429, body)
        case "bybit":
            told = _bybit_error(10006, "Too many visits!", now_ms)
            told.headers |= _bybit_headers(Room(0, 0, limit, until_ms), now_ms)
            return told
        case _:
            text = f"code:100410:The endpoint is in its disabled period and will be unblocked after {until_ms}"
            return _json(200, {"code": 100410, "msg": text, "debugMsg": "", "data": None})


def _json(status: int, body: Mapping[str, Any]) -> Answer:
    return Answer(status, orjson.dumps(body))


# -- Bitget --------------------------------------------------------------------------------------------------------


def _bitget(call: Call, account: Account, now_ms: int) -> Answer:
    params = call.params
    match call.endpoint:
        case "cancel-order":
            if not account.cancel(int(call.ids[0]), now_ms):
                return _bitget_error(400, "43001", "The order does not exist", now_ms)
            return _bitget_ok({"orderId": call.ids[0], "clientOid": ""}, now_ms)
        case "batch-cancel-order":
            return _bitget_batch(call, account, now_ms)
        case "orderInfo":
            order = int(call.ids[0])
            rows = [_bitget_row(account, order, now_ms)] if account.knows(order) else []
            return _bitget_ok(rows, now_ms)
        case "history-orders" | "unfilled-orders":
            below = int(params["idLessThan"]) if params.get("idLessThan") else None
            most = min(PAGE, int(params.get("limit", PAGE)))
            listed = account.ended_below if call.endpoint == "history-orders" else account.live_below
            found = listed(int(call.ids[0]) + 1, 1) if call.ids else listed(below, most)
            wanted = [order for order in found if not call.ids or str(order) in call.ids]
            if params.get("tpslType") == "tpsl":
                wanted = []
            return _bitget_ok([_bitget_row(account, order, now_ms) for order in wanted], now_ms)
        case "current-plan-order" | "history-plan-order":
            return _bitget_ok({"nextFlag": False, "idLessThan": "", "orderList": []}, now_ms)
        case _:
            return _bitget_error(404, "40404", "Request URL NOT FOUND", now_ms)


def _bitget_batch(call: Call, account: Account, now_ms: int) -> Answer:
    if len(call.ids) > 50:
        return _bitget_error(400, "40912", "The single cancel cannot exceed 50", now_ms)
    done, failed = [], []
    for name in call.ids:
        if account.cancel(int(name), now_ms):
            done.append({"orderId": name, "clientOid": ""})
        else:
            why = {"errorCode": "43001", "errorMsg": "The order does not exist"}
            failed.append({"orderId": name, "clientOid": "", **why})
    return _bitget_ok({"successList": done, "failureList": failed}, now_ms)


def _bitget_row(account: Account, order: int, now_ms: int) -> dict[str, str]:
    ended = account.ended.get(order)
    return {
        "orderId": str(order),
        "clientOid": "",
        "symbol": account.symbol,
        "size": "1",
        "baseVolume": "0",
        "status": "live" if ended is None else "cancelled",
        "cTime": str(now_ms - 3_600_000),
        "uTime": str(ended or now_ms - 3_600_000),
    }


def _bitget_ok(data: Any, now_ms: int) -> Answer:
    return _json(200, {"code": "00000", "msg": "success", "requestTime": now_ms, "data": data})


def _bitget_error(status: int, code: str, text: str, now_ms: int) -> Answer:
    return _json(status, {"code": code, "msg": text, "requestTime": now_ms, "data": None})


# -- Bybit ---------------------------------------------------------------------------------------------------------


def _bybit(call: Call, account: Account, now_ms: int, room: Room) -> Answer:
    match call.endpoint:
        case "cancel":
            if not account.cancel(int(call.ids[0]), now_ms):
                return _bybit_error(170213, "Order does not exist.", now_ms)
            return _bybit_ok({"orderId": call.ids[0], "orderLinkId": ""}, {}, now_ms)
        case "cancel-batch":
            return _bybit_batch(call, account, now_ms, room.granted)
        case "realtime" | "history":
            orders = [int(name) for name in call.ids if account.knows(int(name))]
            if call.endpoint == "history":
                orders = [order for order in orders if not account.is_live(order)]
            rows = [_bybit_row(account, order, now_ms) for order in orders]
            return _bybit_ok({"category": "spot", "list": rows, "nextPageCursor": ""}, {}, now_ms)
        case _:
            return _bybit_error(10001, "no such path", now_ms)


def _bybit_batch(call: Call, account: Account, now_ms: int, granted: int) -> Answer:
    if len(call.ids) > 10:
        return _bybit_error(10001, "too many orders", now_ms)
    rows, outcomes = [], []
    for place, name in enumerate(call.ids):
        if place >= granted:
            outcome = {"code": 10006, "msg": "Too many visits!"}
        elif account.cancel(int(name), now_ms):
            outcome = {"code": 0, "msg": "OK"}
        else:
            outcome = {"code": 170213, "msg": "Order does not exist."}
        row = {"category": "spot", "symbol": account.symbol, "orderLinkId": ""}
        rows.append({**row, "orderId": name if outcome["code"] == 0 else ""})
        outcomes.append(outcome)
    return _bybit_ok({"list": rows}, {"list": outcomes}, now_ms)


def _bybit_row(account: Account, order: int, now_ms: int) -> dict[str, str]:
    ended = account.ended.get(order)
    return {
        "orderId": str(order),
        "orderLinkId": "",
        "symbol": account.symbol,
        "orderStatus": "New" if ended is None else "Cancelled",
        "cancelType": "UNKNOWN" if ended is None else "CancelByUser",
        "cumExecQty": "0",
        "qty": "1",
        "stopOrderType": "",
        "createdTime": str(now_ms - 3_600_000),
        "updatedTime": str(ended or now_ms - 3_600_000),
    }


def _bybit_headers(room: Room, now_ms: int) -> dict[str, str]:
    reset_ms = room.reset_ms if room.left == 0 else now_ms
    return {
        "X-Bapi-Limit": str(room.limit),
        "X-Bapi-Limit-Status": str(room.left),
        "X-Bapi-Limit-Reset-Timestamp": str(reset_ms),
    }


def _bybit_ok(result: Any, extra: Any, now_ms: int) -> Answer:
    return _json(200, {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": extra, "time": now_ms})


def _bybit_error(code: int, text: str, now_ms: int) -> Answer:
    return _json(200, {"retCode": code, "retMsg": text, "result": {}, "retExtInfo": {}, "time": now_ms})


# -- BingX ---------------------------------------------------------------------------------------------------------


def _bingx(call: Call, account: Account, now_ms: int) -> Answer:
    match call.endpoint:
        case "cancel":
            order = int(call.ids[0])
            if not account.cancel(order, now_ms):
                return _bingx_error(100404, "order not exist")
            return _bingx_ok(_bingx_row(account, order, now_ms))
        case "cancelOrders":
            done = [int(name) for name in call.ids if account.cancel(int(name), now_ms)]
            text = "can not find order for orderId:{} for symbol: {}, please verify and retry later"
            fails = [
                {"orderId": name, "error": text.format(name, account.symbol)}
                for name in call.ids
                if int(name) not in done
            ]
            return _bingx_ok({"orders": [_bingx_row(account, order, now_ms) for order in done], "fails": fails})
        case "query":
            order = int(call.ids[0])
            if not account.knows(order):
                return _bingx_error(100404, "order not exist")
            return _bingx_ok(_bingx_row(account, order, now_ms))
        case "openOrders":
            return _bingx_ok(
                {"orders": [_bingx_row(account, order, now_ms) for order in account.live_below(None, 2000)]}
            )
        case "historyOrders":
            lowest = int(call.ids[0]) if call.ids else 0
            index, size = int(call.params.get("pageIndex", 1)), min(PAGE, int(call.params.get("pageSize", PAGE)))
            page = account.ended_from(lowest, index * size)[(index - 1) * size :]
            return _bingx_ok({"orders": [_bingx_row(account, order, now_ms) for order in page]})
        case _:
            return _bingx_error(100400, "no such path")


def _bingx_row(account: Account, order: int, now_ms: int) -> dict[str, Any]:
    ended = account.ended.get(order)
    return {
        "symbol": account.symbol,
        "orderId": order,
        "price": "1",
        "origQty": "1",
        "executedQty": "0",
        "cummulativeQuoteQty": "0",
        "status": "PENDING" if ended is None else "CANCELED",
        "type": "LIMIT",
        "side": "BUY",
        "clientOrderID": "",
        "time": now_ms - 3_600_000,
        "updateTime": ended or now_ms - 3_600_000,
    }


def _bingx_ok(data: Any) -> Answer:
    return _json(200, {"code": 0, "msg": "", "debugMsg": "", "data": data})


def _bingx_error(code: int, text: str) -> Answer:
    return _json(200, {"code": code, "msg": text, "debugMsg": "", "data": None})
