"""The keys to the simulated BingX's order stream: made, prolonged, given up, and looked up."""

import re

import orjson

from cancelq_worker.simulator import Account
from tests.unit.simulated_bingx import LISTEN_KEY, Desk


def listen_key(desk: Desk) -> str:
    made = desk.send("POST", LISTEN_KEY)
    assert made.status == 200
    return str(orjson.loads(made.reply.body)["listenKey"])


def test_a_listen_key_is_good_for_an_hour_from_when_it_was_last_prolonged() -> None:
    desk = Desk()
    key = listen_key(desk)
    bingx = desk.bingx
    assert re.fullmatch(r"[0-9a-f]{64}", key)
    owner = bingx.owner_of(key)
    assert owner is not None
    assert owner.uid == "1000"
    desk.clock.advance(ms=3_599_999)
    assert desk.send("PUT", LISTEN_KEY, f"listenKey={key}".encode()).status == 200
    desk.clock.advance(ms=3_599_999)
    assert bingx.owner_of(key) is not None
    desk.clock.advance(ms=1)
    assert bingx.owner_of(key) is None
    assert desk.send("PUT", LISTEN_KEY, f"listenKey={key}".encode()).status == 404


def test_a_listen_key_can_be_given_up() -> None:
    desk = Desk()
    first, second = listen_key(desk), listen_key(desk)
    assert first != second
    assert desk.send("DELETE", LISTEN_KEY, f"listenKey={first}".encode()).status == 200
    assert desk.bingx.owner_of(first) is None
    assert desk.bingx.owner_of(second) is not None
    assert desk.send("DELETE", LISTEN_KEY, f"listenKey={first}".encode()).status == 404
    assert desk.send("PUT", LISTEN_KEY).status == 204


def test_a_reset_ends_all_listen_keys() -> None:
    desk = Desk()
    key = listen_key(desk)
    desk.simulator.reset()
    assert desk.bingx.owner_of(key) is None


def test_a_listen_key_is_its_owners_alone() -> None:
    desk = Desk()
    desk.simulator.add_account(Account("bingx", "other", "s", "", "2000"))
    key = listen_key(desk)
    assert desk.send("DELETE", LISTEN_KEY, f"listenKey={key}".encode(), key="other").status == 404
    assert desk.send("POST", LISTEN_KEY, key="").code == 100413
    assert desk.send("PUT", LISTEN_KEY, f"listenKey={key}".encode(), key="nobody").code == 100413
    assert desk.bingx.owner_of(key) is not None


def test_the_listen_key_endpoint_takes_two_calls_a_second() -> None:
    desk = Desk(limited=True)
    assert [desk.send(method, LISTEN_KEY).code for method in ("POST", "PUT", "POST")][-1] == 100410
