"""What the simulated Bitget shows of its orders: look-ups, lists, pages, and how far each of them lags behind."""

from typing import Any

import pytest

from cancelq_worker.simulator import State
from tests.unit.test_simulator_desk import NOW_MS, Desk

DAY_MS = 86_400_000


@pytest.fixture
def desk() -> Desk:
    return Desk()


def ids_of(data: Any) -> list[str]:
    listed = data["orderList"] if isinstance(data, dict) else data
    return [row["orderId"] for row in listed]


def cancel(desk: Desk, order_id: str) -> None:
    assert desk.post("cancel-order", {"symbol": "BTCUSDT", "orderId": order_id}).code == "00000"


# ---- orderInfo


def test_an_order_is_told_in_full(desk: Desk) -> None:
    [order_id] = desk.place(client_id="mine", price="25000", size="0.4", filled="0.1", state="cancelled")
    [row] = desk.get("orderInfo", orderId=order_id).data
    fee = row.pop("feeDetail")
    assert row == {
        "userId": "1000",
        "symbol": "BTCUSDT",
        "orderId": order_id,
        "clientOid": "mine",
        "price": "25000.0000000000000000",
        "size": "0.4000000000000000",
        "orderType": "limit",
        "side": "buy",
        "status": "cancelled",
        "priceAvg": "25000.0000000000000000",
        "baseVolume": "0.1000000000000000",
        "quoteVolume": "2500.0000000000000000",
        "enterPointSource": "API",
        "orderSource": "normal",
        "cancelReason": "normal_cancel",
        "tpslType": "normal",
        "triggerPrice": None,
        "quoteCoin": "USDT",
        "baseCoin": "BTC",
        "cTime": str(NOW_MS),
        "uTime": str(NOW_MS),
    }
    assert fee.startswith('{"newFees":{')


def test_an_unknown_order_is_an_empty_list_and_no_error(desk: Desk) -> None:
    [plan] = desk.place(kind="plan", trigger_price="90")
    for params in ({"orderId": "1"}, {"clientOid": "nobody"}, {"orderId": plan}):
        answer = desk.get("orderInfo", **params)
        assert (answer.status, answer.code, answer.data) == (200, "00000", [])
    assert desk.get("orderInfo").code == "40924"
    assert desk.get("orderInfo", orderId="x").code == "40020"


def test_a_client_id_finds_an_order_for_two_hours_an_order_id_always(desk: Desk) -> None:
    [order_id] = desk.place(client_id="mine")
    desk.clock.advance(ms=7_200_000)
    assert ids_of(desk.get("orderInfo", clientOid="mine").data) == [order_id]
    desk.clock.advance(ms=1)
    assert desk.get("orderInfo", clientOid="mine").data == []
    assert ids_of(desk.get("orderInfo", orderId=order_id).data) == [order_id]


def test_a_look_up_may_lag_behind() -> None:
    desk = Desk(info_lag_ms=500)
    [order_id] = desk.place()
    assert desk.get("orderInfo", orderId=order_id).data == []
    desk.clock.advance(ms=500)
    cancel(desk, order_id)
    assert desk.get("orderInfo", orderId=order_id).data[0]["status"] == "live"
    desk.clock.advance(ms=500)
    assert desk.get("orderInfo", orderId=order_id).data[0]["status"] == "cancelled"


# ---- open orders


def test_the_open_list_has_its_own_fields(desk: Desk) -> None:
    [order_id] = desk.place(price="7", size="4", filled="1", state="partially_filled")
    [row] = desk.get("unfilled-orders").data
    assert "price" not in row
    assert (row["orderId"], row["status"], row["tpslType"]) == (order_id, "partially_filled", "normal")
    assert (row["priceAvg"], row["basePrice"]) == ("7.0000000000000000", "7.0000000000000000")
    assert (row["baseVolume"], row["quoteVolume"]) == ("1.0000000000000000", "7.0000000000000000")
    assert desk.get("unfilled-orders", symbol="NOPE").code == "40034"


def test_tpsl_orders_show_only_where_they_are_asked_for(desk: Desk) -> None:
    [normal], [tpsl] = desk.place(), desk.place(kind="tpsl", trigger_price="90")
    desk.place(kind="plan", trigger_price="90")
    assert ids_of(desk.get("unfilled-orders").data) == [normal]
    [row] = desk.get("unfilled-orders", tpslType="tpsl").data
    assert (row["orderId"], row["tpslType"], row["triggerPrice"]) == (tpsl, "tpsl", "90")
    assert desk.get("unfilled-orders", tpslType="x").code == "40020"


@pytest.mark.parametrize("endpoint", ["unfilled-orders", "history-orders"])
def test_lists_are_paged_from_the_newest_id_down(desk: Desk, endpoint: str) -> None:
    state = "live" if endpoint == "unfilled-orders" else "filled"
    ids = [desk.place(symbol=symbol, state=state)[0] for _ in range(60) for symbol in ("BTCUSDT", "ETHUSDT")]
    ids.reverse()
    assert ids_of(desk.get(endpoint).data) == ids[:100]
    assert ids_of(desk.get(endpoint, limit="500").data) == ids[:100]
    assert ids_of(desk.get(endpoint, idLessThan=ids[99]).data) == ids[100:]
    assert ids_of(desk.get(endpoint, idLessThan=str(int(ids[7]) + 1), limit="3").data) == ids[7:10]
    assert ids_of(desk.get(endpoint, symbol="ETHUSDT", limit="2").data) == [ids[0], ids[2]]
    assert ids_of(desk.get(endpoint, orderId=ids[50]).data) == [ids[50]]
    assert desk.get(endpoint, orderId="1").data == []
    assert desk.get(endpoint, orderId=ids[50], symbol="SOLUSDT").data == []
    assert desk.get(endpoint, limit="0").code == "40020"
    assert desk.get(endpoint, idLessThan="x").code == "40020"


def test_lists_can_be_bounded_by_creation_time(desk: Desk) -> None:
    ids = [desk.place(created_ms=NOW_MS - age_ms)[0] for age_ms in (300, 200, 100)]
    between = {"startTime": str(NOW_MS - 250), "endTime": str(NOW_MS - 150)}
    assert ids_of(desk.get("unfilled-orders", **between).data) == [ids[1]]
    assert ids_of(desk.get("unfilled-orders", startTime=str(NOW_MS - 200)).data) == [ids[2], ids[1]]


def test_the_open_list_may_be_old() -> None:
    desk = Desk(open_lag_ms=400)
    first, second = desk.place(count=2)
    assert desk.get("unfilled-orders").data == []
    desk.clock.advance(ms=400)
    assert ids_of(desk.get("unfilled-orders").data) == [second, first]
    cancel(desk, first)
    desk.clock.advance(ms=399)
    listed = desk.get("unfilled-orders", symbol="BTCUSDT").data
    assert [(row["orderId"], row["status"]) for row in listed] == [(second, "live"), (first, "live")]
    desk.clock.advance(ms=1)
    assert ids_of(desk.get("unfilled-orders").data) == [second]


# ---- history


def test_the_history_tells_how_an_order_ended(desk: Desk) -> None:
    cancelled, filled = (
        desk.place(state="cancelled")[0],
        desk.place(state="filled")[0],
    )
    [rejected] = desk.place(state="failed")
    desk.place()
    rows = desk.get("history-orders").data
    assert [(row["orderId"], row["status"], row["cancelReason"]) for row in rows] == [
        (rejected, "reject", ""),
        (filled, "filled", ""),
        (cancelled, "cancelled", "normal_cancel"),
    ]


def test_the_history_may_lag_behind() -> None:
    desk = Desk(history_lag_ms=300)
    [order_id] = desk.place()
    cancel(desk, order_id)
    desk.clock.advance(ms=299)
    assert desk.get("history-orders", orderId=order_id).data == []
    assert desk.get("unfilled-orders").data == []
    desk.clock.advance(ms=1)
    assert ids_of(desk.get("history-orders", orderId=order_id).data) == [order_id]


def test_the_history_goes_back_ninety_days(desk: Desk) -> None:
    ids = [desk.place(state="filled", created_ms=NOW_MS - days * DAY_MS)[0] for days in (91, 90, 89)]
    assert ids_of(desk.get("history-orders").data) == [ids[2], ids[1]]


def test_a_fired_tpsl_order_is_in_its_history_and_its_child_is_a_normal_order(desk: Desk) -> None:
    [order_id] = desk.place(kind="tpsl", trigger_price="90", state="triggered")
    child = desk.truth(order_id)["child_id"]
    [row] = desk.get("history-orders", tpslType="tpsl").data
    assert (row["orderId"], row["status"]) == (order_id, "executed")
    assert ids_of(desk.get("unfilled-orders").data) == [child]
    desk.simulator.configure({"bitget_tpsl_triggered": "triggered"})
    assert desk.get("history-orders", tpslType="tpsl").data[0]["status"] == "triggered"


# ---- plan orders


def test_open_plan_orders_are_listed_twenty_at_a_time(desk: Desk) -> None:
    ids = desk.place(kind="plan", trigger_price="90", price="89", count=25)[::-1]
    data = desk.get("current-plan-order").data
    assert (ids_of(data), data["nextFlag"], data["idLessThan"]) == (ids[:20], True, ids[19])
    assert data["orderList"][0] == {
        "orderId": ids[0],
        "clientOid": "",
        "symbol": "BTCUSDT",
        "size": "1",
        "planType": "amount",
        "executePrice": "89",
        "triggerPrice": "90",
        "status": "live",
        "orderType": "limit",
        "side": "buy",
        "triggerType": "fill_price",
        "enterPointSource": "API",
        "cTime": str(NOW_MS),
        "uTime": str(NOW_MS),
    }
    rest = desk.get("current-plan-order", idLessThan=data["idLessThan"]).data
    assert (ids_of(rest), rest["nextFlag"]) == (ids[20:], False)
    assert desk.get("current-plan-order", idLessThan=ids[19], limit="5").data["nextFlag"] is False
    assert len(ids_of(desk.get("current-plan-order", limit="100", symbol="BTCUSDT").data)) == 25
    empty = desk.get("current-plan-order", symbol="ETHUSDT").data
    assert empty == {"nextFlag": False, "idLessThan": "", "orderList": []}


def test_the_plan_history_tells_the_three_ends(desk: Desk) -> None:
    fired, failed, cancelled = (
        desk.place(kind="plan", trigger_price="90", state=state)[0] for state in ("triggered", "failed", "cancelled")
    )
    data = desk.get("history-plan-order").data
    assert [(row["orderId"], row["status"]) for row in data["orderList"]] == [
        (cancelled, "cancelled"),
        (failed, "fail_execute"),
        (fired, "executed"),
    ]
    bounded = desk.get("history-plan-order", startTime=str(NOW_MS + 1), endTime=str(NOW_MS + 2)).data
    assert bounded["orderList"] == []


def test_a_fired_plan_order_tells_its_children(desk: Desk) -> None:
    [fired] = desk.place(kind="plan", trigger_price="90", price="89", state="triggered")
    [waiting] = desk.place(kind="plan", trigger_price="90")
    child = desk.truth(fired)["child_id"]
    assert desk.get("plan-sub-order", planOrderId=fired).data == [
        {"orderId": child, "price": "89", "type": "limit", "status": "success"}
    ]
    assert desk.get("plan-sub-order", planOrderId=waiting).data == []
    assert desk.get("plan-sub-order", planOrderId="1").data == []
    assert desk.get("plan-sub-order").code == "40019"


# ---- fills and what a client reads before it starts


def test_fills_name_their_order(desk: Desk) -> None:
    [order_id] = desk.place(price="7", size="4")
    desk.simulator.move_order(order_id, State.partially_filled, filled="1")
    desk.simulator.move_order(order_id, State.filled)
    desk.place(symbol="ETHUSDT", state="filled")
    newest, oldest = desk.get("fills", orderId=order_id).data
    assert (oldest["size"], oldest["amount"]) == ("1", "7.0000000000000000")
    assert (newest["size"], newest["orderId"], newest["priceAvg"]) == ("3", order_id, "7")
    assert len(desk.get("fills").data) == 3
    assert len(desk.get("fills", symbol="ETHUSDT").data) == 1
    assert desk.get("fills", orderId=order_id, idLessThan=newest["tradeId"]).data == [oldest]


def test_the_public_pages_are_there_without_a_key(desk: Desk) -> None:
    def public(path: str) -> Any:
        answer = desk.send_raw("GET", path, b"", {})
        assert answer.code == "00000"
        return answer.data

    assert public("/api/v2/public/time") == {"serverTime": str(NOW_MS)}
    symbols = {row["symbol"]: row for row in public("/api/v2/spot/public/symbols")}
    assert (symbols["ETHBTC"]["baseCoin"], symbols["ETHBTC"]["quoteCoin"]) == ("ETH", "BTC")
    assert [row["symbol"] for row in public("/api/v2/spot/public/symbols?symbol=BTCUSDT")] == ["BTCUSDT"]
    assert [row["coin"] for row in public("/api/v2/spot/public/coins?coin=BTC")] == ["BTC"]
    assert public("/api/v2/margin/currencies") == []


def test_a_key_can_be_tried_without_harm(desk: Desk) -> None:
    data = desk.get("/api/v2/spot/account/info").data
    assert (data["userId"], data["authorities"]) == ("1000", ["stor", "stow"])
