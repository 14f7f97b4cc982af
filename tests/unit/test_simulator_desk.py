"""A desk at the simulated Bitget, and what that venue asks of a call before it listens: key, clock, signature.

The signatures are the known ones of Bitget's scheme: key `test-api-key`, secret `test-api-secret`, passphrase
`test-passphrase`, at 1700000000000.
"""

import hmac
import random
from base64 import b64encode
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from cancelq_worker.simulator import (
    Account,
    Entry,
    Kind,
    ManualClock,
    Reply,
    Request,
    Settings,
    Simulator,
    State,
)

TRADE = "/api/v2/spot/trade"
NOW_MS = 1_700_000_000_000

VECTORS = [
    (
        "cancel-order",
        '{"symbol":"BTCUSDT","orderId":"121211212122"}',
        "j6clxiShOFMBgwPVGyfc73nIrEOwkKhs+xWPHKA1VJs=",
    ),
    (
        "cancel-order",
        '{"symbol":"BTCUSDT","clientOid":"my-oid-1"}',
        "DgFQMsfMyh/lcnQzEjiMlg0ewANGA1Yij/XGj3B19a4=",
    ),
    (
        "cancel-order",
        '{"tpslType":"tpsl","orderId":"121211212122"}',
        "GNExE7QN5P8joG4QQhIZrGfab1VHdAUhW6dK8t70JJc=",
    ),
    (
        "batch-cancel-order",
        '{"symbol":"BTCUSDT","batchMode":"single","orderList":[{"orderId":"121211212122"},{"orderId":"121211212123"}]}',
        "M/Xcu/yMjJLjY6hy86XAtH1fU0tHp3p2i527s/adWEc=",
    ),
    (
        "batch-cancel-order",
        '{"batchMode":"multiple","orderList":[{"symbol":"BTCUSDT","orderId":"121211212122"},'
        '{"symbol":"ETHUSDT","orderId":"121211212123"}]}',
        "z9bI5trmQ4Uqk1xOdlh9cYJ4KW/MH6pDg8mZXREwhns=",
    ),
    ("cancel-symbol-order", '{"symbol":"BTCUSDT"}', "fzzL43eljt6/QL+yVrgG+2An8fk3M1psmljuv8LQJiY="),
    ("cancel-plan-order", '{"orderId":"121211212122"}', "P0YvlVJfd0uTDNFl8sj2wjrA1qzZiJyaFaXW2Mms5Ns="),
    (
        "batch-cancel-plan-order",
        '{"symbolList":["BTCUSDT","ETHUSDT"]}',
        "1rLv5xDwwL4ljMUs5BY2jB6x0Ei7NQf2KRWQXkmiO5A=",
    ),
    ("orderInfo?orderId=121211212122", "", "YNuYp5E0EchDKf5+XRB2CwG59ihqRei48iIQGL0G6uI="),
    ("unfilled-orders?limit=100&symbol=BTCUSDT", "", "PA1OfhVmvMZjyCOrZ/xFeDynqZzIl8CYCgXZctqp+7Q="),
    (
        "history-orders?limit=100&orderId=121211212122&symbol=BTCUSDT",
        "",
        "6LYLcT+D4sMD5f1TNfdiHyyxRjvt5AqUtwPtfKQviag=",
    ),
]
# What a call is told whose key, clock or signature is wrong.
DOORKEEPERS = {
    "40001",
    "40002",
    "40005",
    "40006",
    "40008",
    "40009",
    "40011",
    "40012",
    "40037",
    "40085",
    "40099",
}


@dataclass(frozen=True)
class Answer:
    status: int
    code: str
    msg: str
    data: Any
    reply: Reply

    @property
    def remaining(self) -> int | None:
        held = dict(self.reply.headers).get(b"x-mbx-used-remain-limit")
        return None if held is None else int(held)


def signed_headers(
    method: str,
    target: str,
    body: bytes,
    timestamp_ms: int,
    *,
    key: str = "sim-key",
    secret: str = "sim-secret",
    passphrase: str = "sim-pass",
) -> dict[str, str]:
    """The headers of a call as a client of Bitget's sends them; `target` is path and query as in the URL."""
    prehash = str(timestamp_ms).encode() + method.encode() + target.encode() + body
    return {
        "ACCESS-KEY": key,
        "ACCESS-SIGN": b64encode(hmac.digest(secret.encode(), prehash, "sha256")).decode(),
        "ACCESS-TIMESTAMP": str(timestamp_ms),
        "ACCESS-PASSPHRASE": passphrase,
        "Content-Type": "application/json",
        "locale": "en-US",
    }


class Desk:
    """A simulator on a clock that stands still, and a client that talks to it without a socket."""

    def __init__(self, *, limited: bool = False, seed: int = 1, wall_ms: int = NOW_MS, **settings: Any) -> None:
        if not limited:
            settings.setdefault("limits", {"*": None})
        self.clock = ManualClock(wall_ms)
        self.simulator = Simulator(
            clock=self.clock, rng=random.Random(seed), settings=Settings.model_validate(settings)
        )

    def place(self, *, count: int = 1, state: str = "live", **fields: Any) -> list[str]:
        """Puts orders into the book; returns their ids, oldest first."""
        filled, closed_ms = fields.pop("filled", None), fields.pop("closed_ms", None)
        kind = Kind(fields.pop("kind", Kind.order))
        entry = Entry(kind=kind, **{"symbol": "BTCUSDT", **fields})
        return [
            self.simulator.add_order(entry, state=State(state), filled=filled, closed_ms=closed_ms).order_id
            for _ in range(count)
        ]

    def post(self, endpoint: str, body: Any, **changed: str) -> Answer:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        return self.send("POST", f"{TRADE}/{endpoint}", raw, **changed)

    def get(self, endpoint: str, **params: str) -> Answer:
        query = "&".join(f"{name}={value}" for name, value in sorted(params.items()))
        path = endpoint if endpoint.startswith("/") else f"{TRADE}/{endpoint}"
        return self.send("GET", f"{path}?{query}" if query else path, b"")

    def send(self, method: str, target: str, body: bytes, **changed: str) -> Answer:
        """Signs and sends; `changed` headers (underscores for hyphens) replace the right ones, "" removes."""
        headers = signed_headers(method, target, body, self.clock.wall_us() // 1000)
        headers.update({name.replace("_", "-"): value for name, value in changed.items()})
        return self.send_raw(method, target, body, headers)

    def send_raw(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> Answer:
        path, _, query = target.encode().partition(b"?")
        sent = {name.lower().encode(): value.encode() for name, value in headers.items() if value}
        reply = self.simulator.call(Request(method, path, query, sent, body))
        while reply.resume is not None:
            self.clock.advance(ms=reply.delay_ms)
            reply = reply.resume()
        held = orjson.loads(reply.body) if reply.body[:1] == b"{" and _is_json(reply.body) else {}
        return Answer(reply.status, held.get("code", ""), held.get("msg", ""), held.get("data"), reply)

    def truth(self, order_id: str) -> dict[str, Any]:
        return self.simulator.truth_of([order_id]).entries[0]

    def state(self, order_id: str) -> str:
        return str(self.truth(order_id)["state"])


def _is_json(body: bytes) -> bool:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.simulator.add_account(Account("bitget", "test-api-key", "test-api-secret", "test-passphrase", uid="2000"))
    return desk


def vector_headers(signature: str) -> dict[str, str]:
    return {
        "ACCESS-KEY": "test-api-key",
        "ACCESS-SIGN": signature,
        "ACCESS-TIMESTAMP": str(NOW_MS),
        "ACCESS-PASSPHRASE": "test-passphrase",
        "Content-Type": "application/json",
    }


@pytest.mark.parametrize(("target", "body", "signature"), VECTORS)
def test_the_known_signatures_are_accepted(desk: Desk, target: str, body: str, signature: str) -> None:
    method = "POST" if body else "GET"
    answer = desk.send_raw(method, f"{TRADE}/{target}", body.encode(), vector_headers(signature))
    assert answer.code not in DOORKEEPERS
    assert desk.simulator.calls().entries[-1]["executed"]


@pytest.mark.parametrize(("target", "body", "signature"), VECTORS)
def test_one_changed_byte_is_refused(desk: Desk, target: str, body: str, signature: str) -> None:
    method = "POST" if body else "GET"
    if body:
        body = body.replace("12", "13", 1) if "12" in body else body.replace("T", "C", 1)
    else:
        target = target.replace("=1", "=2", 1)
    if "my-oid-1" in body:
        body = body.replace("my-oid-1", "my-oid-2")
    answer = desk.send_raw(method, f"{TRADE}/{target}", body.encode(), vector_headers(signature))
    assert (answer.status, answer.code, answer.data) == (400, "40009", None)
    assert not desk.simulator.calls().entries[-1]["executed"]


def test_a_signature_holds_for_its_bytes_not_for_their_meaning(desk: Desk) -> None:
    target, body, signature = VECTORS[0]
    spaced = body.replace(",", ", ").encode()
    assert desk.send_raw("POST", f"{TRADE}/{target}", spaced, vector_headers(signature)).code == "40009"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"ACCESS_KEY": ""}, "40001"),
        ({"ACCESS_SIGN": ""}, "40002"),
        ({"ACCESS_PASSPHRASE": ""}, "40011"),
        ({"ACCESS_TIMESTAMP": "soon"}, "40005"),
        ({"ACCESS_TIMESTAMP": ""}, "40005"),
        ({"ACCESS_TIMESTAMP": str(NOW_MS + 1)}, "40009"),
        ({"ACCESS_KEY": "nobody"}, "40006"),
        ({"ACCESS_KEY": "bg_0123456789abcdef0123456789abcdef"}, "40037"),
        ({"ACCESS_PASSPHRASE": "wrong"}, "40012"),
        ({"paptrading": "1"}, "40099"),
        ({"Content_Type": "text/plain"}, "40007"),
    ],
)
def test_each_wrong_header_has_its_code(desk: Desk, changed: dict[str, str], code: str) -> None:
    answer = desk.post("cancel-symbol-order", {"symbol": "BTCUSDT"}, **changed)
    assert (answer.status, answer.code, answer.data) == (400, code, None)


@pytest.mark.parametrize(("ahead_ms", "code"), [(0, "00000"), (30_000, "00000"), (30_001, "40008"), (-30_001, "40008")])
def test_a_call_must_be_within_thirty_seconds_of_the_venues_clock(ahead_ms: int, code: str) -> None:
    desk = Desk(clock_offset_ms=ahead_ms)
    assert desk.get("unfilled-orders").code == code
    told_ms = int(desk.get("/api/v2/public/time").data["serverTime"])
    assert told_ms == NOW_MS + ahead_ms


def test_a_demo_key_needs_the_header_and_a_unified_account_is_turned_away_before_its_signature() -> None:
    desk = Desk()
    desk.simulator.add_account(Account("bitget", "demo", "s", "p", uid="1", demo=True))
    desk.simulator.add_account(Account("bitget", "unified", "s", "p", uid="2", uta=True))
    body, target = b'{"symbol":"BTCUSDT"}', f"{TRADE}/cancel-symbol-order"

    def code(key: str, secret: str, extra: dict[str, str]) -> str:
        headers = signed_headers("POST", target, body, NOW_MS, key=key, secret=secret, passphrase="p")
        return desk.send_raw("POST", target, body, headers | extra).code

    assert code("demo", "s", {}) == "40099"
    assert code("demo", "s", {"PAPTRADING": "1"}) == "00000"
    assert code("unified", "s", {}) == "40085"
    assert code("unified", "wrong", {}) == "40085"


def test_texts_are_chinese_unless_english_is_asked_for(desk: Desk) -> None:
    asked = {"symbol": "BTCUSDT", "orderId": "1"}
    assert desk.post("cancel-order", asked).msg == "The order does not exist"
    assert desk.post("cancel-order", asked, locale="").msg == "订单不存在"
    assert desk.post("cancel-order", asked, locale="zh-CN").msg == "订单不存在"


@pytest.mark.parametrize(
    ("form", "raw_accepted", "decoded_accepted"),
    [("either", True, True), ("raw", True, False), ("decoded", False, True)],
)
def test_which_form_of_an_encoded_query_is_signed_can_be_chosen(
    form: str, raw_accepted: bool, decoded_accepted: bool
) -> None:
    desk = Desk(bitget_query_signed=form)
    sent, decoded = f"{TRADE}/orderInfo?clientOid=a%23b", f"{TRADE}/orderInfo?clientOid=a#b"
    for signed, accepted in ((sent, raw_accepted), (decoded, decoded_accepted)):
        answer = desk.send_raw("GET", sent, b"", signed_headers("GET", signed, b"", NOW_MS))
        assert answer.code == ("00000" if accepted else "40009")


def test_a_request_window_is_kept_where_one_is_asked_for(desk: Desk) -> None:
    late = str(NOW_MS - 5_000)
    assert desk.get("orderInfo", orderId="1", requestTime=late, receiveWindow="5000").code == "00000"
    assert desk.get("orderInfo", orderId="1", requestTime=late, receiveWindow="4999").code == "40078"
    assert desk.get("orderInfo", orderId="1", requestTime=late, receiveWindow="60000").code == "40079"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"'])
def test_a_body_that_is_no_object_is_refused(desk: Desk, body: bytes) -> None:
    assert desk.post("cancel-order", body).code == "40017"


def test_a_path_that_does_not_exist_is_told_so(desk: Desk) -> None:
    answer = desk.get("/api/v3/trade/order-info", orderId="1")
    assert (answer.status, answer.code) == (404, "40404")
    assert desk.send("GET", f"{TRADE}/cancel-order", b"").code == "40404"
    assert desk.get("/elsewhere").status == 404
