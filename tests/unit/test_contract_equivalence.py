"""Both ends of the wire judge alike, whatever is thrown at them."""

import time
from collections.abc import Mapping

from hypothesis import example, given
from hypothesis import strategies as st

from cancelq.contract import MAX_ENTRY_BYTES, Accepted, Intent, Refused, read_entry, wire_fields
from cancelq.errors import IntentError

NOW_MS = time.time_ns() // 1_000_000  # a sweep that waits is judged by the time it is asked for at
ENTRY_ID = f"{NOW_MS}-0"

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
# Every field, with values that are right where the field belongs.
RIGHT = {
    "v": ["1"],
    "id": ["k:1", "desk-7"],
    "scope": ["order", "tpsl", "stop", "symbol", "account", "revoke"],
    "kinds": ["order", "stop,order", "tpsl,stop,order"],
    "older_than_ms": ["1700000000000", "0005"],
    "client_prefix": ["mm-"],
    "target": ["k:1", "1700000000000-0"],
    "symbol": ["BTCUSDT", "BTC-USDT"],
    "order_id": ["1", "121211212122"],
    "client_order_id": ["mm-1"],
    "only_if": ["NEW"],
    "priority": ["normal", "urgent"],
    "not_before_ms": ["1700000000000"],
    "expires_at_ms": ["1700000000000", "1700000060000"],
    "strategy": ["mm", ""],
    "reason": ["stale"],
    "traceparent": [TRACE],
}
NAMES = list(RIGHT)
VALUES = st.one_of(
    st.sampled_from([value for values in RIGHT.values() for value in values]),
    st.text(st.characters(), max_size=80),
    st.text("0123456789", max_size=20),
    st.text("aA-_:. ,", max_size=70),
)
EXTRAS = st.dictionaries(st.from_regex(r"x_[a-z_]{0,5}", fullmatch=True), st.text(max_size=60), max_size=3)
STRANGERS = st.dictionaries(st.one_of(st.text(max_size=10), st.sampled_from(["Symbol", "v2"])), VALUES, max_size=1)


@st.composite
def likely_entries(draw: st.DrawFn) -> dict[str, str]:
    """Entries near the border between good and bad: a good one of some scope, then a little changed."""
    entry = dict(
        draw(
            st.sampled_from(
                [
                    {"symbol": "BTCUSDT", "order_id": "1"},
                    {"scope": "tpsl", "order_id": "1"},
                    {"scope": "stop", "client_order_id": "s"},
                    {"scope": "symbol", "symbol": "BTCUSDT"},
                    {"scope": "account", "kinds": "order,stop"},
                    {"scope": "revoke", "target": "k:1"},
                ]
            )
        )
    )
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=3)):
        entry[name] = draw(st.one_of(*[st.sampled_from(RIGHT[name])] * 3, VALUES))
    entry |= draw(EXTRAS)
    if draw(st.integers(0, 9)) == 0:
        entry |= draw(STRANGERS)
    if draw(st.integers(0, 9)) == 0:
        entry["x_big"] = "é" * draw(st.integers(1900, 2100))
    return entry


ENTRIES = st.one_of(likely_entries(), likely_entries(), st.dictionaries(st.sampled_from(NAMES), VALUES))


def flat(fields: Mapping[str, str]) -> list[bytes]:
    return [text.encode() for pair in fields.items() for text in pair]


@given(ENTRIES)
@example({"x_a": "\ud800", "symbol": "BTCUSDT", "order_id": "1"})
@example({"scope": "account", "older_than_ms": "0000000000000"})
def test_an_intent_can_be_built_exactly_when_the_worker_accepts_it(entry: dict[str, str]) -> None:
    refusal = refusal_of(entry)
    try:
        raw = flat(entry)
    except UnicodeEncodeError:
        assert refusal is not None  # no client could send it
        return
    judged = read_entry(ENTRY_ID, raw)
    if isinstance(judged, Refused):
        assert refusal == (judged.field, judged.detail)
    else:
        assert refusal is None


def refusal_of(entry: dict[str, str]) -> tuple[str, str] | None:
    try:
        assert wire_fields(entry) == entry
    except IntentError as error:
        return error.field, error.detail
    return None


@given(ENTRIES)
def test_an_intent_says_the_same_after_the_journey(entry: dict[str, str]) -> None:
    try:
        intent = Intent.model_validate(entry)
    except IntentError:
        return
    judged = read_entry(ENTRY_ID, flat(intent.to_fields()))
    assert isinstance(judged, Accepted)
    assert judged == read_entry(ENTRY_ID, flat(entry))
    filled_in = {"scope": "order", "priority": "normal", "kinds": "order", "expires_at_ms": str(NOW_MS + 60_000)}
    arrived = {
        name: value
        for name, value in judged.fields.items()
        if name in intent.to_fields() or filled_in.get(name) != value
    }
    if judged.explicit_id:
        arrived["id"] = judged.id
    assert Intent.model_validate(arrived) == intent


@given(
    st.text(max_size=30),
    st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([n.encode() for n in NAMES]))),
)
def test_no_bytes_make_reading_raise(entry_id: str, raw: list[bytes]) -> None:
    check_answer(entry_id, read_entry(entry_id, raw))
    check_answer(entry_id, read_entry(entry_id, dict(zip(raw[::2], raw[1::2], strict=False))))


@given(
    likely_entries(),
    st.integers(0, 30),
    st.one_of(st.binary(max_size=8), st.just(b"\xff"), st.just(b"id"), st.just(b"\x00\r\n")),
)
def test_no_damaged_entry_makes_reading_raise(entry: dict[str, str], at: int, damage: bytes) -> None:
    raw = [text.encode(errors="replace") for pair in entry.items() for text in pair]
    raw[at % len(raw)] = damage
    check_answer(ENTRY_ID, read_entry(ENTRY_ID, raw))
    check_answer(ENTRY_ID, read_entry(ENTRY_ID, [*raw, *raw[:2]]))


def check_answer(entry_id: str, judged: Accepted | Refused) -> None:
    """What holds of every answer, so that the worker may write it into an event without looking again."""
    assert judged.entry_id == entry_id
    assert judged.explicit_id or judged.id == entry_id
    assert len(judged.digest) == 8
    assert judged.queued_us >= 0
    size = sum(len(text) for text in flat(judged.fields))
    assert size <= MAX_ENTRY_BYTES + 200
    if isinstance(judged, Refused):
        assert judged.detail.startswith(f"{judged.field}: ")
        assert judged.detail.isprintable()
        assert judged.detail.isascii()
        assert len(judged.detail) <= 400
