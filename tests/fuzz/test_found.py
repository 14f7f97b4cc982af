"""What the fuzz has found, one example each."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import Mapping
from typing import Any

import pytest

from cancelq.contract import Lane, Refused, Status, read_entry
from cancelq_worker.clocks import in_s
from cancelq_worker.events import event
from cancelq_worker.http import Door, NoAnswer
from cancelq_worker.state import State
from cancelq_worker.venues.bingx.timer import BingxTimer
from cancelq_worker.venues.port import Answer, Reply, Request, Signed, Target, Word
from tests.conformance.suite.papers import answer
from tests.fuzz import entries
from tests.fuzz.answers import VENUES
from tests.fuzz.spoiling import nested

ID = "1735964079647111281"
ORDER = {"scope": "order", "symbol": "BTCUSDT", "order_id": ID}
BY_CLIENT_ID = {"scope": "order", "symbol": "BTCUSDT", "client_order_id": "mine_1"}
AT_BINGX = {"symbol": "BTC-USDT"}
BITGET_ROW = {"orderId": ID, "clientOid": "mine_1", "symbol": "BTCUSDT", "status": "filled", "baseVolume": "1"}
BINGX_ROW = {
    "orderId": int(ID),
    "symbol": "BTC-USDT",
    "status": "CANCELLED",
    "type": "LIMIT",
    "clientOrderID": "mine_1",
}


DEEP_ROUTES = {
    "bitget": ("cancel-order", "cancel-plan-order", "batch-cancel-order", "walk-history", "sweep-list-order"),
    "bybit": ("cancel", "cancel-batch", "realtime", "sweep-list-order"),
    "bingx": ("cancel", "cancel-orders", "query", "open", "sweep-list"),
}


def read(venue: str, route: str, fields: Mapping[str, str], body: Any, status: int = 200) -> Reply:
    dossier = VENUES[venue]
    target = Target(fields, {}, (1_763_690_000_000, 1_763_690_000_001))
    (reply,) = dossier.venue.decode(dossier.route(route), [target], answer(body, status))
    return reply


@pytest.mark.parametrize("code", ["45055", "45031", "43026", "43021", "50062"])
def test_bitget_says_that_an_order_has_ended_so_it_is_not_unknown(code: str) -> None:
    body = {"code": code, "msg": "finalised", "data": None}
    for route, meant in (("order-info", Word.UNCLEAR), ("cancel-order", Word.GONE)):
        reply = read("bitget", route, ORDER, body, 400)
        assert (reply.word, reply.notes) == (meant, {"known": 1})


@pytest.mark.parametrize(
    ("code", "msg", "known"),
    [
        (80018, "order already filled", {"known": 1}),
        (109422, "", {"known": 1}),
        (100400, "the order is FILLED or CANCELLED already before", {"known": 1}),
        (100404, "the order you want to cancel is FILLED or CANCELLED already, or is not a valid order id", {}),
    ],
)
def test_bingx_says_that_an_order_has_ended_so_it_is_not_unknown(code: int, msg: str, known: dict[str, int]) -> None:
    """The last text leaves it open: then neither is noted."""
    for route, meant in (("query", Word.UNCLEAR), ("cancel", Word.GONE)):
        reply = read("bingx", route, ORDER | AT_BINGX, {"code": code, "msg": msg})
        assert reply.word is meant
        assert {name: reply.notes[name] for name in reply.notes if name == "known"} == known


def test_bitget_by_client_id_a_row_that_does_not_tell_its_pair_is_none_of_ours() -> None:
    reply = read("bitget", "walk-history", BY_CLIENT_ID, {"code": "00000", "data": [BITGET_ROW | {"symbol": 45031}]})
    assert reply.word is Word.UNCLEAR


@pytest.mark.parametrize("other", [{"orderId": None}, {"orderId": [{}], "status": "live"}, {"orderId": int(ID) + 0.5}])
def test_bitget_by_client_id_a_row_that_cannot_be_read_may_contradict(other: dict[str, Any]) -> None:
    body = {"code": "00000", "data": [BITGET_ROW, BITGET_ROW | other]}
    assert read("bitget", "walk-history", BY_CLIENT_ID, body).word is Word.UNCLEAR


def test_bitget_by_order_id_the_same_id_as_a_number_may_contradict() -> None:
    body = {"code": "00000", "data": [BITGET_ROW, BITGET_ROW | {"orderId": int(ID), "status": "live"}]}
    assert read("bitget", "order-info", ORDER, body).word is Word.UNCLEAR


@pytest.mark.parametrize("other", [{"orderId": [{}], "status": "EXPIRED"}, {"symbol": "", "status": "NEW"}])
def test_bingx_a_row_that_cannot_be_read_may_contradict(other: dict[str, Any]) -> None:
    body = {"code": 0, "data": {"orders": [BINGX_ROW, BINGX_ROW | other]}}
    assert read("bingx", "open", BY_CLIENT_ID | AT_BINGX, body).word is Word.UNCLEAR


def test_bybit_an_order_id_that_went_through_a_float_names_no_order() -> None:
    row = {"orderId": float(ID), "symbol": "BTCUSDT", "orderStatus": "New", "createdTime": "1763690009000"}
    body = {"retCode": 0, "result": {"list": [row], "category": "spot"}}
    fields = {"scope": "symbol", "symbol": "BTCUSDT", "kinds": "order"}
    assert read("bybit", "sweep-list-order", fields, body).word is Word.UNCLEAR
    stream = VENUES["bybit"].venue.stream
    assert stream is not None
    pushed = {"topic": "order", "data": [row | {"category": "spot", "orderStatus": "Cancelled"}]}
    assert stream.read(json.dumps(pushed)).pushes == []


def test_bybit_a_client_id_that_cannot_be_read_may_begin_as_the_sweep_asks() -> None:
    row = {"orderId": "1", "orderLinkId": ["mine_1"], "symbol": "BTCUSDT", "orderStatus": "New", "createdTime": "1"}
    body = {"retCode": 0, "result": {"list": [row], "category": "spot"}}
    fields = {"scope": "symbol", "symbol": "BTCUSDT", "kinds": "order", "client_prefix": "zz"}
    reply = read("bybit", "sweep-list-order", fields, body)
    assert (reply.notes["sweep"]["open"], reply.notes["sweep"]["todo"]) == (1, [])


def test_bingx_an_order_whose_type_is_no_word_is_of_no_kind() -> None:
    body = {"code": 0, "data": {"orders": [BINGX_ROW | {"status": "NEW", "type": 1e300}]}}
    fields = {"scope": "account", "kinds": "order"}
    assert read("bingx", "sweep-list", fields, body).word is Word.UNCLEAR


@pytest.mark.parametrize("ping", [nested(300, True), nested(300, False), "x" * 500_000])
def test_bingx_a_ping_of_any_depth_or_length_is_answered_shortly(ping: Any) -> None:
    stream = VENUES["bingx"].venue.stream
    assert stream is not None
    frame = stream.read(gzip.compress(json.dumps({"ping": ping, "time": "1"}).encode()))
    assert [len(text) < 1_000 for text in frame.send] == [True]


@pytest.mark.parametrize(
    ("venue", "ok"), [("bitget", '"code":"00000"'), ("bybit", '"retCode":0'), ("bingx", '"code":0')]
)
def test_a_value_nested_as_deep_as_a_reader_goes_is_no_text(venue: str, ok: str) -> None:
    """Showing it takes more stack than there is."""
    deep, dossier = "[" * 1_000 + "]" * 1_000, VENUES[venue]
    names = "orderId clientOid orderLinkId symbol status orderStatus result errorCode serverTime"
    row = "{" + ",".join(f'"{name}":{deep}' for name in names.split()) + "}"
    lists = f'{{"orders":[{row}],"list":[{row}],"successList":[{row}],"failureList":[{row}]}}'
    bodies = [f'{{{ok},"data":{data},"result":{data}}}' for data in (row, f"[{row}]", lists)]
    bodies.append(f'{{"code":{deep},"retCode":{deep},"msg":{deep}}}')
    bodies.append(f'{{{ok},"data":{{"authorities":[{deep}],"permissions":[{deep}],"ips":{deep}}}}}')
    sweep = {"scope": "symbol", "symbol": "BTCUSDT", "kinds": "order"}
    for body in bodies:
        said = Answer(200, {}, body.encode())
        for known in DEEP_ROUTES[venue]:
            named = (
                sweep if "sweep" in known else BY_CLIENT_ID if known in ("walk-history", "realtime", "open") else ORDER
            )
            dossier.venue.decode(dossier.route(known), [Target(named, {})], said)
        assert dossier.venue.read_time(said) is None
        dossier.venue.read_rights(said)


@pytest.mark.parametrize(("status", "body"), [(500, {"code": 0}), (200, {"code": False}), (200, {"code": 0.0})])
def test_bingx_the_timer_is_set_by_a_plain_success_alone(status: int, body: Any) -> None:
    assert BingxTimer().refusal(answer(body, status))
    assert not BingxTimer().refusal(answer({"code": 0, "data": {}}))


@pytest.mark.parametrize(
    ("name", "shown"), [(b" ", "(blank name)"), (b" " * 50, "(blank name)"), (b"", "(empty name)")]
)
def test_a_field_whose_name_is_blank_is_named_all_the_same(name: bytes, shown: str) -> None:
    for value in (b"1", b"\xff"):
        flat = [b"symbol", b"BTCUSDT", b"order_id", b"1", name, value]
        assert entries.check("bitget", flat) == "rejected"
        read = read_entry("1-0", flat)
        assert isinstance(read, Refused)
        assert read.detail.startswith(f"{shown}: ")


def test_a_venues_code_and_word_stand_in_events_on_one_plain_line() -> None:
    """Also a code that was kept with the call and is told by a later event."""
    reply = read("bitget", "cancel-order", ORDER, {"code": "\x9b2J", "msg": "\x1b[2J"}, 400)
    seen = read("bitget", "order-info", ORDER, {"code": "00000", "data": [BITGET_ROW | {"status": "\x1b]0;\x07"}]})
    assert (reply.code, seen.venue_state) == ("\x9b2J", "\x1b]0;\x07")
    state = State(attempts=1, batch_id="b", notes={"call": {"b": "b", "code": reply.code}})
    for said in (reply, seen):
        told = event(
            Lane("bitget", "main"), "i", {**ORDER, "queued_us": "1"}, state, Status.retrying, "reply", said.text,
            worker="w", endpoint="/e", reply=said,
        )  # fmt: skip
        assert told["code"]
        assert all(value.isprintable() for value in told.values()), told


def test_an_answer_that_unpacks_without_end_takes_little_memory() -> None:
    """No answer is asked for packed, but who is asked does not always listen."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(200)) + packer.flush()

    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        door = Door(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", verify=False)
        with pytest.raises(NoAnswer, match="an answer over"):
            await door.call(Signed(Request("GET", "/"), {}), send_by_ns=in_s(5), total_s=10)
        await door.close()
        server.close()

    tracemalloc.start()
    try:
        asyncio.run(main())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 64 * 2**20
