"""What an event tells: of the intent, of the call that carried it, and of the answer it rests on."""

import pytest

from cancelq.contract import FINAL, Event, Lane, Status
from cancelq_worker import events
from cancelq_worker.state import State
from cancelq_worker.venues.port import Reply, Word
from tests.unit.bitget_account import ORDER_ID

LANE = Lane.parse("bitget:main")
RECORD = {
    "scope": "order", "symbol": "BTCUSDT", "client_order_id": "c1", "priority": "urgent", "strategy": "mm",
    "reason": "risk", "x_desk": "7", "queued_us": "1700000000000000", "venue": "bitget", "account": "main",
    "explicit": "1", "not_before_ms": "1", "expires_at_ms": "2", "origin": "a-0",
}  # fmt: skip
CALL = {"b": "b1", "s": 1_700_000_000_200_000, "a": 1_700_000_000_230_000, "code": "43001", "http": 400}
ENDPOINT = "/api/v2/spot/trade/cancel-order"


def fresh(notes: dict[str, object] | None = None) -> State:
    """An intent of which nothing was sent."""
    return State(notes=dict(notes or {}))


def sent(call: dict[str, object] | None = None, *, size: int = 5) -> State:
    """An intent that was sent twice and looked for three times; `call`: what was noted of its last cancel call."""
    return State(
        attempts=2, lookups=3, route="cancel-order", batch_id="b1", size=size, taken_us=1_700_000_000_100_000,
        notes={"call": CALL if call is None else call},
    )  # fmt: skip


def make(
    state: State,
    status: Status = Status.cancelled,
    *,
    reply: Reply | None = None,
    open_orders: int | None = None,
    detail: str = "done",
) -> dict[str, str]:
    return events.event(
        LANE, "a-1", RECORD, state, status, "query", detail,
        worker="w1", endpoint=ENDPOINT, reply=reply, open_orders=open_orders,
    )  # fmt: skip


def parsed(event: dict[str, str]) -> Event:
    return Event.read("1-0", {name.encode(): value.encode() for name, value in event.items()})


def test_every_event_repeats_what_the_intent_said_of_itself() -> None:
    for status in (Status.accepted, Status.unresolved):
        event = parsed(make(fresh(), status))
        assert (event.id, event.venue, event.account, event.scope) == ("a-1", "bitget", "main", "order")
        assert (event.symbol, event.client_order_id, event.strategy, event.reason) == ("BTCUSDT", "c1", "mm", "risk")
        assert (event.priority, event.origin, event.worker, event.queued_us) == (
            "urgent",
            "a-0",
            "w1",
            1700000000000000,
        )
        assert event.extras == {"x_desk": "7"}, "and nothing that is the worker's own"


@pytest.mark.parametrize("status", Status)
def test_exactly_the_terminal_events_are_final(status: Status) -> None:
    assert make(fresh(), status)["final"] == ("1" if status in FINAL else "0")


def test_an_event_tells_the_call_that_carried_the_last_attempt() -> None:
    event = parsed(make(sent()))
    assert (event.attempt, event.lookups) == (2, 3)
    assert (event.endpoint, event.batch_id, event.batch_size) == ("/api/v2/spot/trade/cancel-order", "b1", 5)
    assert (event.taken_us, event.sent_us, event.answered_us) == (
        1_700_000_000_100_000, 1_700_000_000_200_000, 1_700_000_000_230_000,
    )  # fmt: skip
    assert (event.code, event.http_status) == ("43001", 400)


def test_a_single_call_is_a_batch_of_one() -> None:
    assert make(sent(size=1))["batch_size"] == "1"


def test_no_answer_has_no_time() -> None:
    unanswered: dict[str, object] = {"b": "b1", "s": 1_700_000_000_200_000, "code": "", "http": 0}
    event = make(sent(unanswered), Status.unresolved)
    assert event["sent_us"] == "1700000000200000"
    for absent in ("answered_us", "code", "http_status"):
        assert absent not in event


def test_the_times_of_an_earlier_call_are_not_those_of_the_last_attempt() -> None:
    """Whoever sent the last one did not live to tell its times; the batch is on record all the same."""
    event = make(sent({**CALL, "b": "b0"}), Status.unresolved)
    assert event["batch_id"] == "b1"
    for absent in ("sent_us", "answered_us", "code"):
        assert absent not in event


def test_what_was_never_sent_names_no_call() -> None:
    event = make(fresh(), Status.expired)
    assert event["attempt"] == "0"
    for absent in ("endpoint", "batch_id", "batch_size", "taken_us", "sent_us", "lookups", "code", "http_status"):
        assert absent not in event


def test_the_other_order_id_is_added_once_the_venue_named_it() -> None:
    assert make(fresh({"oid": ORDER_ID}))["order_id"] == ORDER_ID
    assert "order_id" not in make(fresh())
    assert make(fresh({"cid": "other"}))["client_order_id"] == "c1", "the intent's own stays"


def test_what_the_venue_said_of_the_order_is_told() -> None:
    said = Reply(Word.CANCELLED, "", "", 200, venue_state="cancelled", filled="0.5", child_order_id="9")
    event = parsed(make(sent(), reply=said))
    assert (event.venue_state, event.filled, event.child_order_id) == ("cancelled", "0.5", "9")
    assert event.http_status == 200, "the last call's"
    assert event.code == "43001", "what the cancel was answered with"


def test_the_code_of_a_look_stands_in_where_the_cancel_had_none() -> None:
    assert make(fresh(), reply=Reply(Word.UNCLEAR, "40010", "", 400))["code"] == "40010"


@pytest.mark.parametrize("left", [0, 7])
def test_the_number_left_open_is_told_even_if_it_is_none(left: int) -> None:
    assert make(fresh(), open_orders=left)["open_orders"] == str(left)
    assert "open_orders" not in make(fresh())


@pytest.mark.parametrize(
    "text", ["two\nlines", "tab\tand\r\nbreaks", "\x85next\u2028line", "\x1b[31mred\x00\x07", "x" * 5000]
)
def test_a_detail_is_one_short_line(text: str) -> None:
    """It may hold a venue's text, and is shown in terminals."""
    detail = make(fresh(), detail=text)["detail"]
    assert detail.isprintable()
    assert len(detail) <= 300


def test_every_event_can_be_read_by_whoever_audits() -> None:
    for status in Status:
        state = sent({**CALL})
        state.notes["oid"] = ORDER_ID
        event = make(state, status, reply=Reply(Word.OPEN, "1", "x", 200), open_orders=1)
        assert parsed(event).status is status
        assert all(value != "" for value in event.values()), "what is unknown is absent"
