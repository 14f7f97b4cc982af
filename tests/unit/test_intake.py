"""What an inbox entry becomes: an intent in its class, a revocation, or the event that names the field."""

import pytest

from cancelq.contract import Event, Lane
from cancelq_worker.intake import Intake
from cancelq_worker.ledger import memory_key
from cancelq_worker.records import NewIntent, NewOutcome
from cancelq_worker.state import LOCAL, NONE, State
from cancelq_worker.venues.port import Stage
from tests.unit.bitget_account import BITGET, ORDER_ID

LANE = Lane.parse("bitget:main")
ENTRY_MS = 1_700_000_000_123
ENTRY_ID = f"{ENTRY_MS}-0"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def read(entry_id: str = ENTRY_ID, **fields: str) -> NewIntent | NewOutcome:
    flat = [text.encode() for pair in fields.items() for text in pair]
    (item,) = Intake(LANE, BITGET, "worker-1").prepare("0-0", [(entry_id, flat)]).items
    return item


def intent(**fields: str) -> NewIntent:
    item = read(**fields)
    assert isinstance(item, NewIntent), item
    return item


def rejection(**fields: str) -> dict[str, str]:
    item = read(**fields)
    assert isinstance(item, NewOutcome), item
    return item.event


SCOPES = {
    "order": ({"symbol": "BTCUSDT", "order_id": ORDER_ID}, "by-id", "any", Stage.CANCEL, (f"order:i:{ORDER_ID}",)),
    "order by client id": (
        {"symbol": "BTCUSDT", "client_order_id": "c1"},
        "by-client-id",
        "named:BTCUSDT",
        Stage.CANCEL,
        ("order:c:BTCUSDT:c1",),
    ),
    "tpsl": ({"scope": "tpsl", "order_id": ORDER_ID}, "tpsl", "tpsl-history", Stage.CANCEL, (f"tpsl:i:{ORDER_ID}",)),
    "stop": ({"scope": "stop", "order_id": ORDER_ID}, "stop", "stop-history", Stage.CANCEL, (f"stop:i:{ORDER_ID}",)),
    "stop by client id": (
        {"scope": "stop", "client_order_id": "c1"}, "stop", "stop-history::", Stage.CANCEL, ("stop:c::c1",),
    ),
    "symbol": ({"scope": "symbol", "symbol": "BTCUSDT"}, "symbol", "sweep-order", Stage.CANCEL, ()),
    "symbol, narrowed": (
        {"scope": "symbol", "symbol": "BTCUSDT", "client_prefix": "mm-"}, "sweep-order", "sweep-order", Stage.LOOK, (),
    ),
    "symbol, other kinds": (
        {"scope": "symbol", "symbol": "BTCUSDT", "kinds": "stop,tpsl"}, "sweep-tpsl", "sweep-tpsl", Stage.LOOK, (),
    ),
    "account": ({"scope": "account"}, "sweep-order", "sweep-order", Stage.LOOK, ()),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "cancel", "look", "start", "orders"), SCOPES.values(), ids=SCOPES)
def test_each_scope_waits_in_its_class(
    fields: dict[str, str], cancel: str, look: str, start: Stage, orders: tuple[str, ...]
) -> None:
    made = intent(**fields)
    state = made.state
    assert (state.cancel_class, state.look_class, state.stage, state.orders) == (cancel, look, start, orders)
    assert (state.fence, state.taken, state.attempts, state.lookups, state.strikes) == (0, 0, 0, 0, 0)
    assert state.digest == made.digest
    assert State.parse(state.pack().encode()) == state


def test_a_record_holds_what_was_asked_and_when() -> None:
    made = intent(id="a-1", symbol="BTCUSDT", order_id=ORDER_ID, strategy="mm", x_desk="7")
    assert (made.id, made.named_by, made.due_ms) == ("a-1", ENTRY_ID, 0)
    assert made.record == {
        "scope": "order", "priority": "normal", "symbol": "BTCUSDT", "order_id": ORDER_ID, "strategy": "mm",
        "x_desk": "7", "queued_us": f"{ENTRY_MS}000", "explicit": "1",
    }  # fmt: skip


def test_an_entry_without_an_id_is_known_by_its_own() -> None:
    made = intent(symbol="BTCUSDT", order_id=ORDER_ID)
    assert (made.id, made.named_by) == (ENTRY_ID, "")
    assert "explicit" not in made.record


def test_priority_and_times_are_taken_over() -> None:
    made = intent(
        symbol="BTCUSDT",
        order_id=ORDER_ID,
        priority="urgent",
        not_before_ms="1700000000500",
        expires_at_ms="1700000009000",
    )
    assert made.state.urgent
    assert (made.due_ms, made.state.expires_ms) == (1_700_000_000_500, 1_700_000_009_000)


@pytest.mark.parametrize("scope", ["symbol", "account"])
def test_a_sweep_expires_a_minute_after_it_was_queued(scope: str) -> None:
    fields = {"symbol": "BTCUSDT"} if scope == "symbol" else {}
    assert intent(scope=scope, **fields).state.expires_ms == ENTRY_MS + 60_000
    assert intent(scope=scope, expires_at_ms="1700000001000", **fields).state.expires_ms == 1_700_000_001_000


def test_an_order_does_not_expire_by_itself() -> None:
    assert intent(symbol="BTCUSDT", order_id=ORDER_ID).state.expires_ms == 0


# -- revocations ---------------------------------------------------------------------------------------------


def test_a_revocation_is_carried_by_no_call() -> None:
    made = intent(id="r-1", scope="revoke", target="a-1")
    assert (made.state.cancel_class, made.state.look_class) == (LOCAL, "a-1")
    assert made.state.queue == LOCAL
    assert made.record["target"] == "a-1"


@pytest.mark.parametrize("target", ["a-1", "desk:7", "12345", "1-2-3", "-", "1700000000123", "1-"])
def test_a_target_with_an_id_of_its_own_is_remembered_by_its_hash(target: str) -> None:
    """An id made of digits alone is a producer's id all the same: only digits-digits is an entry's own."""
    assert intent(scope="revoke", target=target).state.orders == (memory_key(target).hex(),)


@pytest.mark.parametrize("target", ["1700000000000-0", "0-1"])
def test_a_target_known_by_its_entry_is_remembered_by_the_inbox(target: str) -> None:
    made = intent(scope="revoke", target=target)
    assert " - " in made.state.pack()
    assert made.state.orders in ((), (NONE,))


# -- rejections ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("symbol", "right"),
    [
        ("BTC-USDT", "BTCUSDT"),
        ("btcusdt", "BTCUSDT"),
        ("btc_usdt", "BTCUSDT"),
        ("Eth-Usdt", "ETHUSDT"),
        ("BtcUsdt", "BTCUSDT"),
    ],
)
def test_a_pair_spelt_as_elsewhere_is_rejected_with_the_right_spelling(symbol: str, right: str) -> None:
    event = rejection(symbol=symbol, order_id=ORDER_ID)
    assert event["detail"].startswith("symbol: ")
    assert repr(right) in event["detail"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"order_id": ORDER_ID}, "symbol"),
        ({"symbol": "BTCUSDT"}, "order_id"),
        ({"symbol": "BTCUSDT", "order_id": "abc"}, "order_id"),
        ({"scope": "tpsl", "client_order_id": "c1"}, "order_id"),
        ({"scope": "orders", "symbol": "BTCUSDT"}, "scope"),
        ({"symbol": "BTCUSDT", "order_id": ORDER_ID, "only_if": "NEW"}, "only_if"),
        ({"symbol": "BTCUSDT", "order_id": ORDER_ID, "orderid": "1"}, "orderid"),
        ({"scope": "revoke"}, "target"),
        ({"scope": "symbol", "symbol": "BTCUSDT", "order_id": ORDER_ID}, "order_id"),
        ({"scope": "account", "kinds": ""}, "kinds"),
    ],
)
def test_what_can_never_work_is_one_event_that_names_the_field(fields: dict[str, str], field: str) -> None:
    assert rejection(**fields)["detail"].startswith(f"{field}: ")


@pytest.mark.parametrize("wrong", [{"order_id": "abc"}, {"orderid": "1"}], ids=["unfit for the venue", "unknown field"])
def test_a_rejection_has_the_fields_of_a_final_event(wrong: dict[str, str]) -> None:
    labels = {
        "symbol": "BTCUSDT", "client_order_id": "c1", "strategy": "mm", "reason": "risk", "traceparent": TRACE,
        "priority": "urgent", "x_desk": "7",
    }  # fmt: skip
    event = rejection(id="a-1", **labels, **wrong)
    assert {name: event[name] for name in labels} == labels
    known = Event.read("1-0", {name.encode(): value.encode() for name, value in event.items()})
    assert (known.id, known.status, known.final, known.evidence) == ("a-1", "rejected", True, "local")
    assert (known.venue, known.account, known.scope, known.worker) == ("bitget", "main", "order", "worker-1")
    assert (known.attempt, known.queued_us, known.v) == (0, ENTRY_MS * 1000, "1")
    assert known.extras == {"x_desk": "7"}
    for absent in ("endpoint", "batch_id", "sent_us", "code", "lookups", "taken_us"):
        assert absent not in event, "nothing was sent"


def test_a_rejection_keeps_an_id_that_can_be_used_and_else_the_entrys() -> None:
    item = read(id="a-1", symbol="BTC-USDT", order_id=ORDER_ID)
    assert (item.id, item.named_by) == ("a-1", ENTRY_ID)
    item = read(id="not an id", symbol="BTCUSDT", order_id=ORDER_ID)
    assert isinstance(item, NewOutcome)
    assert (item.id, item.named_by, item.event["id"]) == (ENTRY_ID, "", ENTRY_ID)


def test_poison_harms_nobody_else() -> None:
    good = [b"symbol", b"BTCUSDT", b"order_id", ORDER_ID.encode()]
    poison: list[list[bytes]] = [
        [], [b"symbol"], [b"\xff", b"\xff"], [b"symbol", b"BTCUSDT", b"symbol", b"ETHUSDT", b"order_id", b"1"],
        [b"symbol", b"B" * 5000, b"order_id", b"1"], [b"id", b"a b", *good], [b"x_a", b"\xff", *good],
        [b"symbol", b"BTCUSDT\r\n", b"order_id", b"1\x00"], [b"symbol", b"../..", b"order_id", b"1"],
        [text for n in range(3000) for text in (b"f%d" % n, b"")],
    ]  # fmt: skip
    entries = [(f"1-{n}", flat) for n, bad in enumerate(poison) for flat in (bad, good)]
    admission = Intake(LANE, BITGET, "worker-1").prepare(
        "0-0", [(f"{n}-0", flat) for n, (_, flat) in enumerate(entries, 1)]
    )
    assert (admission.cursor, admission.last) == ("0-0", f"{len(entries)}-0")
    kinds = [type(item) for item in admission.items]
    assert kinds == [NewOutcome, NewIntent] * len(poison)
    for item in admission.items:
        if isinstance(item, NewOutcome):
            assert item.event["status"] == "rejected"
            assert item.event["final"] == "1"
            assert "\n" not in item.event["detail"]
