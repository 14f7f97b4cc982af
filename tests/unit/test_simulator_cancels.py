"""Every way to cancel at the simulated Bitget, with the answer's shape and what is true afterwards."""

from typing import Any

import pytest

from cancelq_worker.simulator import State
from tests.unit.test_simulator_desk import NOW_MS, Desk

UNKNOWN = "1111461743123927040"


@pytest.fixture
def desk() -> Desk:
    return Desk()


def rows(*order_ids: str, symbol: str = "BTCUSDT") -> list[dict[str, str]]:
    return [{"symbol": symbol, "orderId": order_id} for order_id in order_ids]


def batch(desk: Desk, items: list[dict[str, str]], **more: str) -> Any:
    answer = desk.post("batch-cancel-order", {"batchMode": "multiple", "orderList": items, **more})
    assert answer.code == "00000", answer
    return answer.data


# ---- one order


def test_a_cancel_names_both_ids_and_ends_the_order(desk: Desk) -> None:
    [order_id] = desk.place(client_id="mine")
    answer = desk.post("cancel-order", {"symbol": "BTCUSDT", "orderId": order_id})
    assert (answer.status, answer.code, answer.msg) == (200, "00000", "success")
    assert answer.data == {"orderId": order_id, "clientOid": "mine"}
    truth = desk.truth(order_id)
    assert truth["state"] == "cancelled"
    assert [change["by"] for change in truth["history"]] == ["control", "call:1"]
    assert truth["cancels"] == [{"call": 1, "at_us": NOW_MS * 1000, "verdict": "accepted"}]


def test_an_order_can_be_named_by_its_client_id_and_the_order_id_wins(desk: Desk) -> None:
    first, second = desk.place(client_id="a") + desk.place(client_id="b")
    assert desk.post("cancel-order", {"symbol": "BTCUSDT", "clientOid": "a"}).data["orderId"] == first
    both = {"symbol": "BTCUSDT", "clientOid": "a", "orderId": second}
    assert desk.post("cancel-order", both).data["orderId"] == second


def test_numbers_are_taken_for_the_ids_they_spell(desk: Desk) -> None:
    [order_id] = desk.place()
    assert desk.post("cancel-order", {"symbol": "BTCUSDT", "orderId": int(order_id)}).code == "00000"


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        ({"symbol": "BTCUSDT", "orderId": UNKNOWN}, "43001", "The order does not exist"),
        ({"symbol": "BTCUSDT", "clientOid": "nobody"}, "43001", "The order does not exist"),
        ({"symbol": "NOPEUSDT", "orderId": UNKNOWN}, "40034", "Parameter NOPEUSDT does not exist"),
        ({"orderId": UNKNOWN}, "40019", "Parameter symbol cannot be empty"),
        ({"symbol": "BTCUSDT"}, "40924", "orderId and clientOid must have one"),
        ({"symbol": "BTCUSDT", "orderId": "abc"}, "40020", "Parameter orderId error"),
        ({"symbol": "BTCUSDT", "orderId": "9223372036854775808"}, "40020", "Parameter orderId error"),
        ({"symbol": "BTCUSDT", "orderId": ["1"]}, "40020", "Parameter orderId error"),
        ({"symbol": "BTCUSDT", "orderId": "1", "tpslType": "x"}, "40020", "Parameter tpslType error"),
        ({"tpslType": "tpsl", "clientOid": "a"}, "40019", "Parameter orderId cannot be empty"),
        ({"tpslType": "tpsl", "orderId": UNKNOWN}, "43020", "Stop profit and stop loss order does not exist"),
    ],
)
def test_what_cannot_be_cancelled_is_http_400_with_a_code(
    desk: Desk, body: dict[str, str], code: str, told: str
) -> None:
    answer = desk.post("cancel-order", body)
    assert (answer.status, answer.code, answer.msg, answer.data) == (400, code, told, None)


def test_a_second_cancel_is_too_soon_for_a_second_and_then_finds_no_order(desk: Desk) -> None:
    [order_id] = desk.place()
    body = {"symbol": "BTCUSDT", "orderId": order_id}
    assert desk.post("cancel-order", body).code == "00000"
    desk.clock.advance(ms=999)
    assert desk.post("cancel-order", body).code == "45129"
    desk.clock.advance(ms=1)
    assert desk.post("cancel-order", body).code == "43001"
    assert [naming["verdict"] for naming in desk.truth(order_id)["cancels"]] == [
        "accepted",
        "too_soon",
        "closed",
    ]


def test_an_order_of_another_pair_is_not_found(desk: Desk) -> None:
    [order_id] = desk.place(symbol="ETHUSDT")
    assert desk.post("cancel-order", {"symbol": "BTCUSDT", "orderId": order_id}).code == "43001"
    assert desk.state(order_id) == "live"
    assert desk.truth(order_id)["cancels"][0]["verdict"] == "not_here"


def test_live_tpsl_and_plan_orders_are_not_found_at_the_normal_endpoint(desk: Desk) -> None:
    [tpsl] = desk.place(kind="tpsl", trigger_price="90")
    [plan] = desk.place(kind="plan", trigger_price="90")
    assert desk.post("cancel-order", {"symbol": "BTCUSDT", "orderId": tpsl}).code == "43001"
    assert desk.post("cancel-order", {"symbol": "BTCUSDT", "orderId": plan}).code == "40109"
    assert (desk.state(tpsl), desk.state(plan)) == ("live", "live")


def test_a_tpsl_order_has_its_own_codes(desk: Desk) -> None:
    [order_id], [normal] = desk.place(kind="tpsl", trigger_price="90"), desk.place()
    body = {"tpslType": "tpsl", "orderId": order_id}
    assert desk.post("cancel-order", body).data == {"orderId": order_id, "clientOid": ""}
    desk.clock.advance(ms=1000)
    assert desk.post("cancel-order", body).code == "43021"
    assert desk.post("cancel-order", {"tpslType": "tpsl", "orderId": normal}).code == "43020"


def test_an_order_the_venue_will_not_cancel_stays_open(desk: Desk) -> None:
    [order_id] = desk.place()
    desk.simulator.configure({"stuck_ids": [order_id]})
    assert desk.post("cancel-order", {"symbol": "BTCUSDT", "orderId": order_id}).code == "45024"
    assert desk.state(order_id) == "live"


# ---- batches


def test_a_batch_over_several_pairs_answers_for_each_item(desk: Desk) -> None:
    btc, eth = desk.place(client_id="one") + desk.place(symbol="ETHUSDT", client_id="two")
    [gone] = desk.place(state="filled")
    [plan] = desk.place(kind="plan", trigger_price="90", client_id="three")
    items = rows(btc, gone, UNKNOWN, plan) + rows(eth, symbol="ETHUSDT") + rows(UNKNOWN, symbol="NOPE")
    assert batch(desk, items) == {
        "successList": [{"orderId": btc, "clientOid": "one"}, {"orderId": eth, "clientOid": "two"}],
        "failureList": [
            {
                "orderId": gone,
                "clientOid": "",
                "errorMsg": "The order does not exist",
                "errorCode": "43001",
            },
            {
                "orderId": UNKNOWN,
                "clientOid": "",
                "errorMsg": "The order does not exist",
                "errorCode": "43001",
            },
            {
                "orderId": plan,
                "clientOid": "three",
                "errorMsg": "The data of the order cannot be found, please confirm the order number",
                "errorCode": "40109",
            },
            {
                "orderId": UNKNOWN,
                "clientOid": "",
                "errorMsg": "Parameter NOPE does not exist",
                "errorCode": "40034",
            },
        ],
    }
    assert [desk.state(order_id) for order_id in (btc, eth, gone, plan)] == [
        "cancelled",
        "cancelled",
        "filled",
        "live",
    ]
    call = desk.simulator.calls().entries[-1]
    assert (call["failed_items"], call["ids"]) == (4, [btc, gone, UNKNOWN, plan, eth, UNKNOWN])


def test_single_mode_looks_under_the_outer_pair_whatever_the_items_say(desk: Desk) -> None:
    btc, eth = desk.place() + desk.place(symbol="ETHUSDT")
    items = rows(btc, symbol="ETHUSDT") + rows(eth, symbol="ETHUSDT")
    answer = desk.post("batch-cancel-order", {"symbol": "BTCUSDT", "orderList": items})
    assert [row["orderId"] for row in answer.data["successList"]] == [btc]
    assert [row["orderId"] for row in answer.data["failureList"]] == [eth]
    assert desk.state(eth) == "live"


def test_a_batch_of_client_ids_works_and_a_mixed_one_fails_those_items(desk: Desk) -> None:
    ids = [desk.place(client_id=name)[0] for name in "abcd"]
    named = [{"symbol": "BTCUSDT", "clientOid": "a"}, {"symbol": "BTCUSDT", "clientOid": "b"}]
    assert len(batch(desk, named)["successList"]) == 2
    mixed = [{"symbol": "BTCUSDT", "clientOid": "c"}, {"symbol": "BTCUSDT", "orderId": ids[3]}]
    answer = batch(desk, mixed)
    assert [row["orderId"] for row in answer["successList"]] == [ids[3]]
    assert [row["clientOid"] for row in answer["failureList"]] == ["c"]
    assert desk.state(ids[2]) == "live"


def test_an_order_named_twice_in_one_batch_is_cancelled_once(desk: Desk) -> None:
    [order_id] = desk.place()
    answer = batch(desk, rows(order_id, order_id))
    assert [row["orderId"] for row in answer["successList"]] == [order_id]
    assert [row["errorCode"] for row in answer["failureList"]] == ["45129"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"batchMode": "multiple", "orderList": rows(*([UNKNOWN] * 51))}, "40912"),
        ({"batchMode": "multiple", "orderList": []}, "40019"),
        ({"batchMode": "multiple"}, "40019"),
        ({"batchMode": "multiple", "orderList": [{"orderId": UNKNOWN}]}, "40019"),
        ({"batchMode": "multiple", "orderList": [{"symbol": "BTCUSDT"}]}, "40924"),
        ({"batchMode": "multiple", "orderList": ["x"]}, "40020"),
        ({"batchMode": "double", "orderList": rows(UNKNOWN)}, "40020"),
        ({"orderList": rows(UNKNOWN)}, "40019"),
        ({"symbol": "NOPE", "orderList": rows(UNKNOWN)}, "40034"),
    ],
)
def test_a_batch_that_cannot_be_read_is_refused_as_a_whole(desk: Desk, body: dict[str, Any], code: str) -> None:
    answer = desk.post("batch-cancel-order", body)
    assert (answer.status, answer.code, answer.data) == (400, code, None)


def test_one_item_that_is_no_id_spoils_the_whole_batch(desk: Desk) -> None:
    [order_id] = desk.place()
    body = {"batchMode": "multiple", "orderList": rows(order_id, "not-an-id")}
    assert desk.post("batch-cancel-order", body).code == "40020"
    assert desk.state(order_id) == "live"
    assert desk.truth(order_id)["cancels"] == []


def test_fifty_items_are_one_call(desk: Desk) -> None:
    ids = desk.place(count=50)
    assert len(batch(desk, rows(*ids))["successList"]) == 50
    assert desk.simulator.calls().next == 1


def test_how_a_wholly_failed_batch_and_its_items_are_told_can_be_chosen() -> None:
    lists = Desk(bitget_error_codes=False)
    [failure] = batch(lists, rows(UNKNOWN))["failureList"]
    assert set(failure) == {"orderId", "clientOid", "errorMsg"}
    tops = Desk(bitget_all_failed="top")
    answer = tops.post("batch-cancel-order", {"batchMode": "multiple", "orderList": rows(UNKNOWN)})
    assert (answer.status, answer.code) == (400, "43001")
    [order_id] = tops.place()
    assert len(batch(tops, rows(order_id, UNKNOWN))["failureList"]) == 1


# ---- a whole pair


def test_the_cancel_of_a_pair_is_answered_at_once_and_done_later() -> None:
    desk = Desk(symbol_cancel_delay_ms=150)
    mine = desk.place(count=3)
    [other] = desk.place(symbol="ETHUSDT")
    [tpsl] = desk.place(kind="tpsl", trigger_price="90")
    [plan] = desk.place(kind="plan", trigger_price="90")
    assert desk.post("cancel-symbol-order", {"symbol": "BTCUSDT"}).data == {"symbol": "BTCUSDT"}
    desk.clock.advance(ms=149)
    assert {desk.state(order_id) for order_id in mine} == {"live"}
    desk.clock.advance(ms=1)
    assert {desk.state(order_id) for order_id in mine} == {"cancelled"}
    assert {desk.state(order_id) for order_id in (other, tpsl, plan)} == {"live"}
    assert desk.truth(mine[0])["closed_us"] == (NOW_MS + 150) * 1000
    assert desk.truth(mine[0])["cancels"] == []


def test_it_takes_what_is_open_when_it_is_executed_and_may_leave_some() -> None:
    desk = Desk(symbol_cancel_delay_ms=150)
    desk.post("cancel-symbol-order", {"symbol": "BTCUSDT"})
    [newer] = desk.place()
    desk.clock.advance(ms=150)
    assert desk.state(newer) == "cancelled"
    desk.simulator.configure({"symbol_cancel_miss": 0.5})
    ids = desk.place(count=100)
    desk.post("cancel-symbol-order", {"symbol": "BTCUSDT"})
    desk.clock.advance(ms=150)
    assert 20 < sum(desk.state(order_id) == "live" for order_id in ids) < 80


def test_the_cancel_of_a_pair_needs_a_pair_that_exists(desk: Desk) -> None:
    assert desk.post("cancel-symbol-order", {}).code == "40019"
    assert desk.post("cancel-symbol-order", {"symbol": "NOPE"}).code == "40034"


# ---- plan orders


def test_a_plan_order_is_cancelled_by_either_id(desk: Desk) -> None:
    first, second = (
        desk.place(kind="plan", trigger_price="90")[0],
        desk.place(kind="plan", trigger_price="90", client_id="p2")[0],
    )
    assert desk.post("cancel-plan-order", {"orderId": first}).data == {"result": "success"}
    assert desk.post("cancel-plan-order", {"clientOid": "p2"}).data == {"result": "success"}
    assert (desk.state(first), desk.state(second)) == ("cancelled", "cancelled")
    desk.clock.advance(ms=1000)
    assert desk.post("cancel-plan-order", {"orderId": first}).code == "43026"
    assert desk.post("cancel-plan-order", {"orderId": UNKNOWN}).code == "43025"
    assert desk.post("cancel-plan-order", {"clientOid": "nobody"}).code == "43025"
    assert desk.post("cancel-plan-order", {}).code == "40924"


def test_a_plan_order_that_is_stuck_answers_failure(desk: Desk) -> None:
    [order_id] = desk.place(kind="plan", trigger_price="90")
    desk.simulator.configure({"stuck_ids": [order_id]})
    answer = desk.post("cancel-plan-order", {"orderId": order_id})
    assert (answer.status, answer.code, answer.data) == (200, "00000", {"result": "failure"})
    desk.clock.advance(ms=1000)
    [failure] = desk.post("batch-cancel-plan-order", {}).data["failureList"]
    assert failure == {"orderId": order_id, "clientOid": "", "errorMsg": "failure"}


def test_plan_orders_are_cancelled_by_pairs_and_without_pairs_all_of_them(desk: Desk) -> None:
    btc, eth, sol = (
        desk.place(kind="plan", trigger_price="90", symbol=symbol)[0] for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    )
    [normal] = desk.place()
    answer = desk.post("batch-cancel-plan-order", {"symbolList": ["BTCUSDT"]})
    assert answer.data == {"successList": [{"orderId": btc, "clientOid": ""}], "failureList": []}
    assert (desk.state(eth), desk.state(sol)) == ("live", "live")
    assert desk.post("batch-cancel-plan-order", {"symbolList": ["NOPE"]}).code == "40034"
    assert desk.post("batch-cancel-plan-order", {"symbolList": [{}]}).code == "40020"
    assert desk.post("batch-cancel-plan-order", {"symbolList": "BTCUSDT"}).code == "40020"
    assert len(desk.post("batch-cancel-plan-order", {"symbolList": []}).data["successList"]) == 2
    assert desk.state(normal) == "live"


# ---- late cancels and races


def test_a_late_cancel_is_acknowledged_and_takes_hold_afterwards() -> None:
    desk = Desk(cancel_delay_ms=300)
    [order_id] = desk.place()
    body = {"symbol": "BTCUSDT", "orderId": order_id}
    assert desk.post("cancel-order", body).code == "00000"
    desk.clock.advance(ms=299)
    assert desk.state(order_id) == "live"
    desk.clock.advance(ms=10)
    truth = desk.truth(order_id)
    assert (truth["state"], truth["closed_us"]) == ("cancelled", (NOW_MS + 300) * 1000)


def test_an_order_can_fill_between_the_acknowledgement_and_the_cancel() -> None:
    desk = Desk(cancel_delay_ms=300)
    fills, cancels = desk.place(client_id="fills") + desk.place()
    desk.simulator.configure({"race_fill_ids": ["fills"]})
    assert len(batch(desk, rows(fills, cancels))["successList"]) == 2
    desk.clock.advance(ms=300)
    assert (desk.state(fills), desk.state(cancels)) == ("filled", "cancelled")
    filled = desk.truth(fills)
    assert filled["filled"] == filled["size"]
    assert NOW_MS * 1000 <= filled["closed_us"] < (NOW_MS + 300) * 1000
    assert filled["history"][-1]["by"] == "race"


def test_without_a_delay_the_fill_that_wins_is_told_by_the_cancel(desk: Desk) -> None:
    [order_id] = desk.place()
    desk.simulator.configure({"race_fill": 1.0})
    assert desk.post("cancel-order", {"symbol": "BTCUSDT", "orderId": order_id}).code == "43001"
    assert desk.state(order_id) == "filled"


@pytest.mark.parametrize("delay_ms", [0, 100])
def test_a_part_may_fill_before_the_rest_is_cancelled(delay_ms: int) -> None:
    desk = Desk(race_partial=1.0, cancel_delay_ms=delay_ms)
    [order_id] = desk.place(size="2")
    assert desk.post("cancel-order", {"symbol": "BTCUSDT", "orderId": order_id}).code == "00000"
    desk.clock.advance(ms=delay_ms)
    truth = desk.truth(order_id)
    assert (truth["state"], truth["filled"]) == ("cancelled", "1")


def test_a_plan_order_fires_where_a_normal_one_would_fill() -> None:
    desk = Desk(race_fill=1.0)
    [order_id] = desk.place(kind="plan", trigger_price="90")
    assert desk.post("cancel-plan-order", {"orderId": order_id}).code == "43026"
    truth = desk.truth(order_id)
    assert truth["state"] == "triggered"
    assert desk.state(truth["child_id"]) == "live"


def test_shares_are_drawn_from_the_seed_alone() -> None:
    def outcome(seed: int) -> list[str]:
        desk = Desk(seed=seed, race_fill=0.5)
        ids = desk.place(count=50)
        batch(desk, rows(*ids))
        return [desk.state(order_id) for order_id in ids]

    assert outcome(7) == outcome(7)
    assert outcome(7) != outcome(8)
    assert set(outcome(7)) == {"filled", "cancelled"}


# ---- placing


def test_placed_orders_can_be_cancelled(desk: Desk) -> None:
    order = {
        "symbol": "BTCUSDT",
        "side": "buy",
        "orderType": "limit",
        "force": "gtc",
        "price": "20000.5",
        "size": "0.01",
        "clientOid": "c-1",
    }
    placed = desk.post("place-order", order).data
    assert placed["clientOid"] == "c-1"
    assert desk.post("place-order", order).code == "43118"
    assert desk.post("cancel-order", {"symbol": "BTCUSDT", "clientOid": "c-1"}).data == placed
    plan = {**order, "clientOid": "p-1", "triggerPrice": "19000", "triggerType": "mark_price"}
    plan["executePrice"] = "19000"
    placed = desk.post("place-plan-order", plan).data
    assert desk.truth(placed["orderId"])["kind"] == "plan"
    tpsl = {**order, "tpslType": "tpsl", "triggerPrice": "19000"}
    placed = desk.post("place-order", tpsl).data
    assert placed["clientOid"] == ""
    assert desk.truth(placed["orderId"])["kind"] == "tpsl"


@pytest.mark.parametrize(
    ("changed", "state"),
    [({"orderType": "market"}, "filled"), ({"force": "ioc"}, "cancelled"), ({"force": "post_only"}, "live")],
)
def test_what_does_not_rest_ends_at_once(desk: Desk, changed: dict[str, str], state: str) -> None:
    order = {"symbol": "BTCUSDT", "side": "buy", "orderType": "limit", "price": "1", "size": "1"} | changed
    assert desk.state(desk.post("place-order", order).data["orderId"]) == state


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"side": "hold"}, "40020"),
        ({"side": ""}, "40019"),
        ({"price": "-1"}, "40020"),
        ({"price": "NaN"}, "40020"),
        ({"price": "1e5"}, "40020"),
        ({"size": "0.0"}, "40020"),
        ({"size": "much"}, "40020"),
        ({"symbol": "NOPE"}, "40034"),
        ({"clientOid": "no spaces"}, "40305"),
    ],
)
def test_an_order_that_makes_no_sense_is_not_placed(desk: Desk, changed: dict[str, str], code: str) -> None:
    order = {"symbol": "BTCUSDT", "side": "buy", "orderType": "limit", "price": "1", "size": "1"} | changed
    assert desk.post("place-order", order).code == code
    assert desk.simulator.truth().entries == []


def test_a_batch_of_new_orders_answers_for_each(desk: Desk) -> None:
    good = {"side": "buy", "orderType": "limit", "price": "1", "size": "1", "clientOid": "a"}
    answer = desk.post("batch-orders", {"symbol": "BTCUSDT", "orderList": [good, good]})
    assert [row["clientOid"] for row in answer.data["successList"]] == ["a"]
    assert [row["errorCode"] for row in answer.data["failureList"]] == ["43118"]
    assert desk.post("batch-orders", {"symbol": "BTCUSDT", "orderList": [good] * 51}).code == "40912"


def test_ids_have_nineteen_digits_grow_and_carry_their_time() -> None:
    desk = Desk()
    old = desk.place(created_ms=NOW_MS - 60_000)
    ids = desk.place(count=100)
    desk.clock.advance(ms=1)
    ids += desk.place(count=100)
    assert old + ids == sorted({*old, *ids})
    assert {len(order_id) for order_id in ids} == {19}
    assert ids[0] == str((NOW_MS - 1_435_725_920_677) << 22)


def test_a_clock_near_zero_makes_long_ids_all_the_same() -> None:
    desk = Desk(wall_ms=5)
    assert desk.place(count=2) == [str(10**18 + 1), str(10**18 + 2)]


def test_the_market_can_be_told_what_to_do_with_an_order(desk: Desk) -> None:
    [order_id] = desk.place(size="4")
    desk.simulator.move_order(order_id, State.partially_filled, filled="1")
    assert desk.truth(order_id)["filled"] == "1"
    desk.simulator.move_order(order_id, State.filled)
    assert [change["state"] for change in desk.truth(order_id)["history"]] == [
        "live",
        "partially_filled",
        "filled",
    ]
