"""What a cancel does at the simulated Bybit: singly, in batches, all at once; at once or later."""

from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit.bybit_desk import NOW_MS, BybitDesk

CANCEL, BATCH, ALL = "/v5/order/cancel", "/v5/order/cancel-batch", "/v5/order/cancel-all"
CREATE = "/v5/order/create"


@pytest.fixture
def desk() -> BybitDesk:
    return BybitDesk()


# ---- one order


def test_an_order_is_cancelled_by_either_id(desk: BybitDesk) -> None:
    [first], [second] = desk.place(client_id="a-1"), desk.place(client_id="a-2")
    assert desk.cancel(first).result == {"orderId": first, "orderLinkId": "a-1"}
    by_link = desk.post(CANCEL, {"category": "spot", "symbol": "BTCUSDT", "orderLinkId": "a-2"})
    assert by_link.result == {"orderId": second, "orderLinkId": "a-2"}
    assert [desk.state(first), desk.state(second)] == ["cancelled", "cancelled"]


def test_of_two_ids_the_order_id_counts(desk: BybitDesk) -> None:
    [first], [second] = desk.place(client_id="a-1"), desk.place(client_id="a-2")
    assert desk.cancel(first, orderLinkId="a-2").result["orderId"] == first
    assert desk.cancel("1", orderLinkId="a-2").code == 170213
    assert (desk.state(first), desk.state(second)) == ("cancelled", "live")


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"orderId": "1"}, 170213),
        ({"orderId": ""}, 10001),
        ({"orderId": None}, 10001),
        ({"orderId": "abc"}, 170130),
        ({"orderId": str(2**63)}, 170130),
        ({"orderId": ["1"]}, 10001),
        ({"orderId": 1}, 10001),
        ({"symbol": 1}, 10001),
        ({"symbol": "ETHUSDT"}, 170213),
        ({"symbol": "btcusdt"}, 170121),
        ({"symbol": "BTC-USDT"}, 170121),
        ({"symbol": ""}, 10001),
        ({"orderFilter": "Anything"}, 170201),
        ({"orderFilter": "tpslOrder"}, 170213),
        ({"orderFilter": "StopOrder"}, 170213),
        ({"orderFilter": "OcoOrder"}, 170213),
    ],
)
def test_what_is_wrong_is_told_and_leaves_the_order_alone(desk: BybitDesk, changed: dict[str, Any], code: int) -> None:
    [order_id] = desk.place()
    asked = {"category": "spot", "symbol": "BTCUSDT", "orderId": order_id, **changed}
    assert desk.post(CANCEL, asked).code == code
    assert desk.state(order_id) == "live"
    assert desk.simulator.calls().entries[-1]["failed_items"] == (0 if code == 170201 else 1)


@pytest.mark.parametrize(("kind", "word"), [("order", "Order"), ("tpsl", "tpslOrder"), ("plan", "StopOrder")])
def test_each_kind_of_order_has_its_filter(desk: BybitDesk, kind: str, word: str) -> None:
    [order_id] = desk.place(kind=kind)
    for other in {"Order", "tpslOrder", "StopOrder"} - {word}:
        assert desk.cancel(order_id, orderFilter=other).code == 170213
    assert desk.state(order_id) == "live"
    assert desk.cancel(order_id, orderFilter=word).code == 0
    assert desk.state(order_id) == "cancelled"


@pytest.mark.parametrize(
    ("setting", "codes"),
    [
        ("170213", (170213, 170213)),
        ("110001", (110001, 110001)),
        ("170142", (170142, 170142)),
        ("170190", (170190, 170190)),
        ("by_state", (170142, 170139)),
    ],
)
def test_an_ended_order_is_refused_with_the_code_chosen(setting: str, codes: tuple[int, int]) -> None:
    desk = BybitDesk(bybit_closed_code=setting)
    [cancelled], [filled] = desk.place(state="cancelled"), desk.place(state="filled")
    assert (desk.cancel(cancelled).code, desk.cancel(filled).code) == codes


def test_an_order_that_is_stuck_cannot_be_cancelled_now() -> None:
    desk = BybitDesk(stuck_ids=["mine"])
    [order_id] = desk.place(client_id="mine")
    assert desk.cancel(order_id).code == 170191
    assert desk.word(order_id) == "New"


# ---- acknowledged, executed later


@pytest.mark.parametrize("again", ["170212", "170190", "170035", "0"])
def test_a_cancel_is_executed_later_and_a_second_one_meets_it(again: str) -> None:
    desk = BybitDesk(cancel_delay_ms=300, bybit_pending_code=again)
    [order_id] = desk.place()
    assert desk.cancel(order_id).code == 0
    assert desk.cancel(order_id).code == int(again)
    desk.clock.advance(ms=299)
    assert (desk.word(order_id), desk.cancel(order_id).code) == ("New", int(again))
    desk.clock.advance(ms=1)
    assert (desk.word(order_id), desk.cancel(order_id).code) == ("Cancelled", 170213)
    assert [change["state"] for change in desk.truth(order_id)["history"]] == ["live", "cancelled"]


def test_there_is_no_gap_between_two_cancels(desk: BybitDesk) -> None:
    [order_id] = desk.place(symbol="BTCUSDT")
    desk.simulator.configure({"stuck_ids": [order_id]})
    assert [desk.cancel(order_id).code for _ in range(3)] == [170191] * 3
    desk.simulator.configure({"stuck_ids": []})
    assert desk.cancel(order_id).code == 0


def test_a_venue_may_have_a_delay_of_its_own() -> None:
    desk = BybitDesk(cancel_delay_ms=300, cancel_delay_of_ms={"bybit": 100})
    [order_id] = desk.place()
    desk.cancel(order_id)
    desk.clock.advance(ms=99)
    assert desk.state(order_id) == "live"
    desk.clock.advance(ms=1)
    assert desk.state(order_id) == "cancelled"


def test_another_venues_delay_is_not_its_own() -> None:
    desk = BybitDesk(cancel_delay_of_ms={"bitget": 100})
    [order_id] = desk.place()
    desk.cancel(order_id)
    assert desk.state(order_id) == "cancelled"
    with pytest.raises(ValidationError, match="cancel_delay_of_ms"):
        desk.simulator.configure({"cancel_delay_of_ms": {"binance": 100}})


def test_an_acknowledged_cancel_may_lose_to_a_fill() -> None:
    desk = BybitDesk(cancel_delay_ms=300, race_fill=1.0)
    [order_id] = desk.place(size="2")
    assert desk.cancel(order_id).code == 0
    desk.clock.advance(ms=300)
    [row] = desk.realtime(orderId=order_id).rows
    assert (row["orderStatus"], row["cumExecQty"], row["leavesQty"]) == ("Filled", "2", "0")
    # Only the status tells; these are a cancel's.
    assert (row["cancelType"], row["rejectReason"]) == ("CancelByUser", "EC_OrigClOrdIDDoesNotExist")
    desk.simulator.configure({"bybit_race_marks": False})
    [row] = desk.realtime(orderId=order_id).rows
    assert (row["cancelType"], row["rejectReason"]) == ("UNKNOWN", "EC_NoError")


def test_an_acknowledged_cancel_may_come_after_a_partial_fill() -> None:
    desk = BybitDesk(cancel_delay_ms=300, race_partial=1.0)
    [order_id] = desk.place(size="2")
    desk.cancel(order_id)
    desk.clock.advance(ms=300)
    assert desk.word(order_id) == "PartiallyFilledCanceled"


# ---- batches


def test_a_batch_is_answered_by_index(desk: BybitDesk) -> None:
    [first], [other] = desk.place(client_id="a-1"), desk.place(symbol="ETHUSDT")
    items = [
        {"symbol": "BTCUSDT", "orderId": "17"},
        {"symbol": "BTCUSDT", "orderId": first},
        {"symbol": "BTCUSDT", "orderLinkId": "unknown"},
        {"symbol": "ETHUSDT", "orderId": other},
        {"symbol": "NOUSDT", "orderId": other},
        {"symbol": "BTCUSDT"},
        "junk",
    ]
    answer = desk.post(BATCH, {"category": "spot", "request": items})
    assert answer.code == 0
    assert answer.outcomes == [170213, 0, 170213, 0, 170121, 10001, 10001]
    assert answer.rows[:4] == [
        {"category": "spot", "symbol": "BTCUSDT", "orderId": "", "orderLinkId": ""},
        {"category": "spot", "symbol": "BTCUSDT", "orderId": first, "orderLinkId": "a-1"},
        {"category": "spot", "symbol": "BTCUSDT", "orderId": "", "orderLinkId": "unknown"},
        {"category": "spot", "symbol": "ETHUSDT", "orderId": other, "orderLinkId": ""},
    ]
    assert answer.ext["list"][0]["msg"] == "Order does not exist."
    assert (desk.state(first), desk.state(other)) == ("cancelled", "cancelled")
    assert desk.simulator.calls().entries[-1]["failed_items"] == 5


def test_a_failed_item_may_echo_its_id() -> None:
    desk = BybitDesk(bybit_failed_ids="echo")
    assert desk.cancel_batch(["17"]).ids == ["17"]


@pytest.mark.parametrize("count", [0, 11])
def test_a_batch_of_the_wrong_size_is_refused_as_a_whole(desk: BybitDesk, count: int) -> None:
    ids = desk.place(count=11)
    answer = desk.cancel_batch(ids[:count])
    assert (answer.code, answer.result) == (10001, {})
    assert {desk.state(order_id) for order_id in ids} == {"live"}
    assert desk.cancel_batch(ids[:10]).outcomes == [0] * 10


def test_a_batch_reaches_normal_orders_only(desk: BybitDesk) -> None:
    ids = [desk.place(kind=kind)[0] for kind in ("tpsl", "plan")]
    items = [{"symbol": "BTCUSDT", "orderId": one, "orderFilter": "tpslOrder"} for one in ids]
    assert desk.post(BATCH, {"category": "spot", "request": items}).outcomes == [170213, 170213]
    assert {desk.state(one) for one in ids} == {"live"}


def test_the_same_order_twice_in_a_batch_ends_once(desk: BybitDesk) -> None:
    [order_id] = desk.place()
    assert desk.cancel_batch([order_id, order_id]).outcomes == [0, 170213]


# ---- all at once


def test_a_pair_is_cancelled_and_listed(desk: BybitDesk) -> None:
    mine, [other] = desk.place(count=2, client_id=""), desk.place(symbol="ETHUSDT")
    [stop] = desk.place(kind="plan")
    answer = desk.post(ALL, {"category": "spot", "symbol": "BTCUSDT"})
    assert answer.result["success"] == "1"
    assert sorted(answer.ids) == mine
    assert {desk.state(one) for one in mine} == {"cancelled"}
    assert (desk.state(other), desk.state(stop)) == ("live", "live")


def test_without_a_pair_all_normal_orders_of_the_account_go(desk: BybitDesk) -> None:
    ids = [desk.place(symbol=symbol)[0] for symbol in ("BTCUSDT", "ETHUSDT")]
    kept = [desk.place(kind=kind)[0] for kind in ("tpsl", "plan")]
    assert sorted(desk.post(ALL, {"category": "spot"}).ids) == ids
    assert [desk.state(one) for one in ids + kept] == ["cancelled", "cancelled", "live", "live"]


@pytest.mark.parametrize(("word", "gone"), [("tpslOrder", "tpsl"), ("StopOrder", "plan"), ("OcoOrder", "none")])
def test_a_filter_chooses_what_goes(desk: BybitDesk, word: str, gone: str) -> None:
    ids = {kind: desk.place(kind=kind)[0] for kind in ("order", "tpsl", "plan")}
    answer = desk.post(ALL, {"category": "spot", "orderFilter": word})
    assert answer.ids == [one for kind, one in ids.items() if kind == gone]
    assert {kind for kind, one in ids.items() if desk.state(one) == "cancelled"} == {gone} & set(ids)
    assert desk.post(ALL, {"category": "spot", "orderFilter": "Any"}).code == 170201


def test_it_takes_what_is_open_when_it_is_executed() -> None:
    desk = BybitDesk(symbol_cancel_delay_ms=150, bybit_cancel_all_list=False)
    [early] = desk.place()
    assert desk.post(ALL, {"category": "spot"}).result == {"success": "1"}
    [late] = desk.place()
    assert (desk.word(early), desk.word(late)) == ("New", "New")
    desk.clock.advance(ms=150)
    assert (desk.word(early), desk.word(late)) == ("Cancelled", "Cancelled")


# ---- triggers


def test_a_fired_order_lives_on_under_its_own_id(desk: BybitDesk) -> None:
    [stop] = desk.place(kind="plan", client_id="stop-1", trigger_price="95")
    child = desk.move(stop, "triggered")
    [row] = desk.realtime(orderId=stop).rows
    assert (row["orderId"], row["orderLinkId"], row["orderStatus"]) == (stop, "stop-1", "New")
    assert (row["stopOrderType"], row["triggerPrice"]) == ("Stop", "95")
    assert desk.realtime(orderLinkId="stop-1").ids == [stop]
    assert desk.realtime(orderId=child).ids == []
    assert (desk.realtime().ids, desk.realtime(orderFilter="StopOrder").ids) == ([stop], [])
    assert desk.cancel(child).code == 170213
    assert desk.cancel(stop, orderFilter="StopOrder").code == 170213
    assert desk.cancel(stop).result == {"orderId": stop, "orderLinkId": "stop-1"}
    assert (desk.word(stop), desk.state(stop), desk.state(child)) == ("Cancelled", "triggered", "cancelled")
    assert desk.history().ids == [stop]


def test_an_acknowledged_cancel_of_a_stop_order_may_come_too_late() -> None:
    desk = BybitDesk(cancel_delay_ms=300, race_fill=1.0)
    [stop] = desk.place(kind="plan")
    assert desk.cancel(stop, orderFilter="StopOrder").code == 0
    desk.clock.advance(ms=300)
    # It fired: what it placed is open, under the id that was cancelled.
    assert (desk.word(stop), desk.state(stop)) == ("New", "triggered")
    assert desk.cancel(stop, orderFilter="StopOrder").code == 170213


def test_in_a_classic_account_it_places_another_order() -> None:
    desk = BybitDesk(bybit_trigger_keeps_id=False)
    [stop] = desk.place(kind="tpsl")
    child = desk.move(stop, "triggered")
    assert (desk.word(stop), desk.word(child)) == ("Triggered", "New")
    assert desk.realtime().ids == [child]
    assert desk.cancel(stop, orderFilter="tpslOrder").code == 170213
    assert desk.cancel(child).code == 0
    assert desk.history().ids == [child, stop]


# ---- placing


def create(desk: BybitDesk, **changed: Any) -> Any:
    order = {
        "category": "spot",
        "symbol": "BTCUSDT",
        "side": "Buy",
        "orderType": "Limit",
        "qty": "0.5",
        "price": "20000",
        **changed,
    }
    return desk.post(CREATE, {name: value for name, value in order.items() if value is not None})


@pytest.mark.parametrize(
    ("changed", "kind", "word"),
    [
        ({}, "order", "New"),
        ({"timeInForce": "PostOnly"}, "order", "New"),
        ({"timeInForce": "IOC"}, "order", "Cancelled"),
        ({"orderType": "Market", "price": None}, "order", "Filled"),
        ({"orderFilter": "tpslOrder", "triggerPrice": "15000", "timeInForce": "Limit"}, "tpsl", "Untriggered"),
        ({"orderFilter": "StopOrder", "triggerPrice": "15000"}, "plan", "Untriggered"),
        ({"triggerPrice": "15000"}, "plan", "Untriggered"),
    ],
)
def test_orders_of_each_kind_are_placed(desk: BybitDesk, changed: dict[str, Any], kind: str, word: str) -> None:
    answer = create(desk, orderLinkId="desk-1", **changed)
    assert (answer.code, answer.result["orderLinkId"]) == (0, "desk-1")
    order_id = answer.result["orderId"]
    assert (desk.truth(order_id)["kind"], desk.word(order_id)) == (kind, word)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"symbol": "NOUSDT"}, 170121),
        ({"side": "buy"}, 170117),
        ({"orderType": "limit"}, 170116),
        ({"timeInForce": "Never"}, 170115),
        ({"qty": None}, 170105),
        ({"qty": "0.0"}, 170130),
        ({"price": "-1"}, 170130),
        ({"orderFilter": "tpslOrder"}, 170105),
        ({"orderFilter": "OcoOrder"}, 170201),
        ({"orderLinkId": "x" * 37}, 170130),
        ({"orderLinkId": "a.b"}, 170130),
        ({"orderLinkId": "taken"}, 170141),
        ({"orderLinkId": "taken-too"}, 170141),
    ],
)
def test_what_cannot_be_placed_is_refused(desk: BybitDesk, changed: dict[str, Any], code: int) -> None:
    desk.place(client_id="taken")
    desk.place(client_id="taken-too", kind="plan")
    assert create(desk, **changed).code == code
    assert len(desk.realtime().rows) == 2


def test_a_market_order_to_buy_is_meant_by_its_worth(desk: BybitDesk) -> None:
    sizes = [
        desk.truth(create(desk, orderType="Market", price=None, qty="50", **more).result["orderId"])["size"]
        for more in ({}, {"marketUnit": "baseCoin"}, {"side": "Sell"}, {"side": "Sell", "marketUnit": "quoteCoin"})
    ]
    assert sizes == ["0.5", "50", "50", "0.5"]


def test_a_batch_of_orders_is_placed_by_index(desk: BybitDesk) -> None:
    good = {"symbol": "BTCUSDT", "side": "Sell", "orderType": "Limit", "qty": "1", "price": "3"}
    answer = desk.post("/v5/order/create-batch", {"category": "spot", "request": [good, {**good, "qty": "x"}]})
    assert answer.outcomes == [0, 170130]
    first, second = answer.rows
    assert (desk.word(first["orderId"]), first["createAt"]) == ("New", str(NOW_MS))
    assert (second["orderId"], second["createAt"]) == ("", "")
