"""Misbehaviour on order, seen from the socket: what a client gets, and whether the order was cancelled all the
same.
"""

import random
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from cancelq_worker.simulator import (
    Delivery,
    Entry,
    Fault,
    RunningSimulator,
    Settings,
    Simulator,
    serve,
)
from cancelq_worker.simulator.faults import TRAITS, UnknownFaultError
from tests.unit.test_simulator_desk import TRADE, Desk, signed_headers

CANCEL = f"{TRADE}/cancel-order"
BATCH = f"{TRADE}/batch-cancel-order"


@pytest.fixture
async def server() -> AsyncIterator[RunningSimulator]:
    simulator = Simulator(rng=random.Random(1), settings=Settings(limits={"*": None}))
    async with serve(simulator) as running:
        yield running


@pytest.fixture
async def client(server: RunningSimulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.base_url, trust_env=False, timeout=5) as client:
        yield client


def place(server: RunningSimulator, count: int = 1) -> list[str]:
    return [server.simulator.add_order(Entry(symbol="BTCUSDT")).order_id for _ in range(count)]


def state(server: RunningSimulator, order_id: str) -> str:
    return str(server.simulator.truth_of([order_id]).entries[0]["state"])


async def post(client: httpx.AsyncClient, path: str, body: dict[str, Any], **more: Any) -> httpx.Response:
    raw = orjson.dumps(body)
    headers = signed_headers("POST", path, raw, time.time_ns() // 1_000_000)
    return await client.post(path, content=raw, headers=headers, **more)


async def cancel(client: httpx.AsyncClient, order_id: str, **more: Any) -> httpx.Response:
    return await post(client, CANCEL, {"symbol": "BTCUSDT", "orderId": order_id}, **more)


async def cancel_batch(client: httpx.AsyncClient, order_ids: list[str]) -> Any:
    items = [{"orderId": order_id} for order_id in order_ids]
    answer = await post(client, BATCH, {"symbol": "BTCUSDT", "orderList": items})
    return answer.json()["data"]


@pytest.mark.parametrize(
    ("kind", "status", "page", "executed"),
    [
        ("http_500", 500, b"<html", False),
        ("http_500_executed", 500, b"<html", True),
        ("html_200", 200, b"<!DOCTYPE html", False),
        ("html_502", 502, b"<html", False),
        ("http:503", 503, b"<html", False),
        ("http:403", 403, b"<html", False),
        ("http_429", 429, b'{"code":"429"', False),
        ("code:429", 429, b'{"code":"429"', False),
        ("code:40725", 400, b'{"code":"40725"', False),
        ("unknown_code", 400, b'{"code":"99987"', False),
        ("empty_200", 200, b"", False),
        ("garbage_200", 200, b'{"code":"00000"', False),
    ],
)
async def test_an_answer_of_another_kind(
    server: RunningSimulator,
    client: httpx.AsyncClient,
    kind: str,
    status: int,
    page: bytes,
    executed: bool,
) -> None:
    [order_id] = place(server)
    server.simulator.add_fault(Fault(kind))
    answer = await cancel(client, order_id)
    assert answer.status_code == status
    assert answer.content.startswith(page)
    assert len(answer.content) > 0 or not page
    assert state(server, order_id) == ("cancelled" if executed else "live")
    [call] = server.simulator.calls().entries
    assert (call["fault"], call["executed"], call["http_status"]) == (kind, executed, status)


@pytest.mark.parametrize(
    ("kind", "error", "executed"),
    [
        ("drop", httpx.RemoteProtocolError, False),
        ("execute_and_drop", httpx.RemoteProtocolError, True),
        ("reset", httpx.ReadError, False),
        ("half_body", httpx.RemoteProtocolError, True),
    ],
)
async def test_an_answer_that_does_not_arrive(
    server: RunningSimulator,
    client: httpx.AsyncClient,
    kind: str,
    error: type[httpx.HTTPError],
    executed: bool,
) -> None:
    [order_id] = place(server)
    server.simulator.add_fault(Fault(kind))
    with pytest.raises(error):
        await cancel(client, order_id)
    assert state(server, order_id) == ("cancelled" if executed else "live")
    other = place(server)[0]
    assert (await cancel(client, other)).json()["code"] == "00000"


@pytest.mark.parametrize("kind", ["drop", "reset", "html_200", "code:43001", "hang", "empty_200"])
async def test_whether_the_call_is_executed_all_the_same_can_be_chosen(
    server: RunningSimulator, client: httpx.AsyncClient, kind: str
) -> None:
    [order_id] = place(server)
    server.simulator.add_fault(Fault(kind, execute=True, delay_ms=1))
    try:
        await cancel(client, order_id)
    except httpx.TransportError:
        assert kind in ("drop", "reset", "hang")
    assert state(server, order_id) == "cancelled"


async def test_a_call_may_hang_until_the_client_gives_up(server: RunningSimulator, client: httpx.AsyncClient) -> None:
    [order_id] = place(server)
    server.simulator.add_fault(Fault("hang"))
    with pytest.raises(httpx.ReadTimeout):
        await cancel(client, order_id, timeout=0.25)
    assert state(server, order_id) == "live"


async def test_leaving_breaks_what_is_still_under_way() -> None:
    simulator = Simulator(settings=Settings(latency_before_ms=(600_000, 600_000)))
    async with httpx.AsyncClient(trust_env=False) as client:
        async with serve(simulator) as running:
            with pytest.raises(httpx.ReadTimeout):
                await client.get(f"{running.base_url}/api/v2/public/time", timeout=0.25)
        with pytest.raises(httpx.ConnectError):
            await client.get(running.base_url)


async def test_a_slow_answer_was_executed_long_before(server: RunningSimulator, client: httpx.AsyncClient) -> None:
    [order_id] = place(server)
    server.simulator.add_fault(Fault("slow_ms", delay_ms=60_000))
    with pytest.raises(httpx.ReadTimeout):
        await cancel(client, order_id, timeout=0.25)
    assert state(server, order_id) == "cancelled"
    server.simulator.add_fault(Fault("slow_ms", delay_ms=30))
    started = time.monotonic()
    assert (await cancel(client, place(server)[0])).json()["code"] == "00000"
    assert time.monotonic() - started >= 0.03


def test_a_late_call_is_executed_late() -> None:
    desk = Desk()
    [order_id] = desk.place()
    desk.simulator.add_fault(Fault("late_ms", delay_ms=700))
    before_us = desk.clock.wall_us()
    answer = desk.post("cancel-order", {"symbol": "BTCUSDT", "orderId": order_id})
    assert (answer.code, answer.reply.delay_ms) == ("00000", 0)
    truth = desk.truth(order_id)
    assert truth["closed_us"] == truth["cancels"][0]["at_us"] == before_us + 700_000
    assert desk.simulator.calls().entries[0]["at_us"] == before_us


async def test_a_drip_arrives_whole_at_last(server: RunningSimulator, client: httpx.AsyncClient) -> None:
    [order_id] = place(server)
    server.simulator.add_fault(Fault("slow_drip", delay_ms=40))
    started = time.monotonic()
    answer = await cancel(client, order_id)
    assert answer.json()["data"]["orderId"] == order_id
    assert time.monotonic() - started >= 0.04


async def test_a_huge_body_is_as_large_as_it_says_and_can_be_left_unread(
    server: RunningSimulator, client: httpx.AsyncClient
) -> None:
    first, second = place(server, 2)
    server.simulator.add_fault(Fault("huge_body", size_bytes=300_000))
    answer = await cancel(client, first)
    assert len(answer.content) == 300_000
    assert answer.json()["data"]["orderId"] == first
    server.simulator.add_fault(Fault("huge_body"))
    body = orjson.dumps({"symbol": "BTCUSDT", "orderId": second})
    headers = signed_headers("POST", CANCEL, body, time.time_ns() // 1_000_000)
    async with client.stream("POST", CANCEL, content=body, headers=headers) as stream:
        assert stream.headers["content-length"] == "100000000"
    assert state(server, second) == "cancelled"
    assert (await cancel(client, place(server)[0])).status_code == 200


async def test_an_answer_may_be_about_other_orders(server: RunningSimulator, client: httpx.AsyncClient) -> None:
    ids = place(server, 3)
    server.simulator.add_fault(Fault("wrong_ids"))
    data = await cancel_batch(client, ids)
    assert [row["orderId"] for row in data["successList"]] == [str(int(one) + 7) for one in ids]
    assert {state(server, order_id) for order_id in ids} == {"cancelled"}


async def test_items_may_be_missing_or_repeated(server: RunningSimulator, client: httpx.AsyncClient) -> None:
    ids = place(server, 5)
    server.simulator.add_fault(Fault("missing_items"))
    told = [row["orderId"] for row in (await cancel_batch(client, ids))["successList"]]
    assert len(told) == 2
    assert set(told) < set(ids)
    ids = place(server, 5)
    server.simulator.add_fault(Fault("repeat_items"))
    told = [row["orderId"] for row in (await cancel_batch(client, ids))["successList"]]
    assert len(told) == 7
    assert set(told) == set(ids)
    server.simulator.add_fault(Fault("missing_items"))
    assert (await cancel(client, place(server)[0])).json()["data"] == {}


def test_a_fault_hits_only_what_it_names() -> None:
    desk = Desk()
    first, second = desk.place(client_id="a") + desk.place(client_id="b")
    for endpoint in ("history-orders", "bitget/fills", f"{TRADE}/orderInfo"):
        desk.simulator.add_fault(Fault("http_500", endpoint=endpoint))
        assert desk.get("unfilled-orders").status == 200
        assert desk.get(endpoint.rpartition("/")[2], orderId=first).status == 500
    desk.simulator.add_fault(Fault("http_500", order_id=second, count=2))
    desk.simulator.add_fault(Fault("http_500", uid="someone else"))
    assert desk.post("cancel-order", {"symbol": "BTCUSDT", "orderId": first}).status == 200
    items = [{"orderId": first}, {"orderId": second}]
    assert desk.post("batch-cancel-order", {"symbol": "BTCUSDT", "orderList": items}).status == 500
    assert desk.post("cancel-order", {"symbol": "BTCUSDT", "orderId": second}).status == 500
    assert desk.post("cancel-order", {"symbol": "BTCUSDT", "orderId": second}).status == 200
    assert [(fault.hits, fault.count) for fault in desk.simulator.core.faults.listed()] == [
        (1, 0),
        (1, 0),
        (1, 0),
        (2, 0),
        (0, 1),
    ]


def test_a_fault_without_a_count_hits_its_share_for_ever() -> None:
    def hits(seed: int) -> list[int]:
        desk = Desk(seed=seed)
        desk.simulator.add_fault(Fault("http_500", count=None, probability=0.3))
        return [desk.get("fills").status for _ in range(200)]

    assert hits(1) == hits(1)
    assert hits(1) != hits(2)
    assert 30 < hits(1).count(500) < 90


def test_a_call_over_the_limit_uses_up_no_fault() -> None:
    desk = Desk(limited=True, limits={"bitget/fills": 1})
    desk.simulator.add_fault(Fault("http_500", count=2))
    assert [desk.get("fills").status for _ in range(2)] == [500, 429]
    assert desk.simulator.core.faults.listed()[0].count == 1


@pytest.mark.parametrize("kind", ["nonsense", "code:", "http:", "http:99", "http:abc", ""])
def test_an_unknown_fault_is_an_error_that_lists_them(kind: str) -> None:
    with pytest.raises(UnknownFaultError, match="execute_and_drop"):
        Fault(kind)


def test_every_fault_says_how_its_answer_travels() -> None:
    assert {Fault(kind).trait.delivery for kind in TRAITS} == set(Delivery)
