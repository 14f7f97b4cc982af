"""`read_entry`: what an inbox entry asks, or why it can never work."""

import time

import pytest

from cancelq.contract import BULK_EXPIRES_AFTER_MS, MAX_ENTRY_BYTES, Accepted, Refused, read_entry, wire_fields
from cancelq.errors import IntentError

ENTRY_ID = "1700000000000-3"
CANCEL = {"symbol": "BTCUSDT", "order_id": "121211212122"}


def flat(fields: dict[str, str]) -> list[bytes]:
    return [text.encode() for pair in fields.items() for text in pair]


def accepted(fields: dict[str, str], entry_id: str = ENTRY_ID) -> Accepted:
    judged = read_entry(entry_id, flat(fields))
    assert isinstance(judged, Accepted), judged
    return judged


def refused(fields: dict[str, str] | list[bytes], entry_id: str = ENTRY_ID) -> Refused:
    judged = read_entry(entry_id, fields if isinstance(fields, list) else flat(fields))
    assert isinstance(judged, Refused), judged
    assert judged.detail.startswith(f"{judged.field}: ")
    assert len(judged.detail) < 400
    assert judged.detail.isprintable()
    return judged


def test_a_bare_cancel_gets_its_defaults_and_the_entry_id() -> None:
    judged = accepted(CANCEL)
    assert judged.id == judged.entry_id == ENTRY_ID
    assert not judged.explicit_id
    assert judged.fields == {**CANCEL, "scope": "order", "priority": "normal"}
    assert judged.queued_us == 1_700_000_000_000_000


def test_an_id_of_ones_own_is_kept_and_left_out_of_the_fields() -> None:
    judged = accepted({"v": "1", "id": "desk-7:42", **CANCEL})
    assert (judged.id, judged.explicit_id) == ("desk-7:42", True)
    assert "id" not in judged.fields
    assert "v" not in judged.fields


def test_both_order_ids_are_kept() -> None:
    both = {**CANCEL, "client_order_id": "mm-1"}
    assert accepted(both).fields.items() >= both.items()


def test_mappings_are_read_like_flat_entries() -> None:
    fields = {name.encode(): value.encode() for name, value in CANCEL.items()}
    assert read_entry(ENTRY_ID, fields) == read_entry(ENTRY_ID, flat(CANCEL))
    assert read_entry(ENTRY_ID, tuple(flat(CANCEL))) == read_entry(ENTRY_ID, flat(CANCEL))


@pytest.mark.parametrize("fields", [{"scope": "symbol", "symbol": "BTCUSDT"}, {"scope": "account"}])
def test_bulk_scopes_expire_a_minute_after_they_were_queued(fields: dict[str, str]) -> None:
    judged = accepted(fields)
    assert judged.fields["kinds"] == "order"
    assert judged.fields["expires_at_ms"] == "1700000060000"
    assert accepted({**fields, "expires_at_ms": "1700000000500"}).fields["expires_at_ms"] == "1700000000500"


def test_an_order_does_not_expire_by_itself() -> None:
    assert "expires_at_ms" not in accepted(CANCEL).fields


def test_kinds_are_kept_in_one_order_and_numbers_without_leading_zeros() -> None:
    judged = accepted({"scope": "account", "kinds": "stop,order,tpsl", "older_than_ms": "0001700000000"})
    assert judged.fields["kinds"] == "order,tpsl,stop"
    assert judged.fields["older_than_ms"] == "1700000000"


@pytest.mark.parametrize(
    ("entry_id", "queued_us"),
    [
        ("0-1", 0),
        ("18446744073709551615-18446744073709551615", 18_446_744_073_709_551_615_000),
        ("", 0),
        ("no entry id", 0),
        ("-5", 0),
        ("9" * 5000 + "-1", 0),
        ("٣-1", 0),
    ],
)
def test_any_entry_id_is_survived(entry_id: str, queued_us: int) -> None:
    judged = accepted({"scope": "account"}, entry_id)
    assert judged.queued_us == queued_us
    assert len(judged.fields["expires_at_ms"]) <= 13


GOOD = [
    {"symbol": "BTC-USDT", "client_order_id": "a.B_9:#+/=-"},
    {"scope": "tpsl", "order_id": "1"},
    {"scope": "tpsl", "order_id": "1", "symbol": "BTCUSDT"},
    {"scope": "stop", "client_order_id": "s1", "not_before_ms": "1700000000000"},
    {**CANCEL, "only_if": "PARTIALLY_FILLED", "priority": "urgent"},
    {**CANCEL, "strategy": "", "reason": "é" * 64},
    {**CANCEL, "not_before_ms": "1700000000000", "expires_at_ms": "1700000000001"},
    {"scope": "symbol", "symbol": "BTCUSDT", "client_prefix": "mm-", "older_than_ms": "1700000000000"},
    {"scope": "revoke", "target": "1700000000000-0"},
    {"scope": "revoke", "target": "desk-1", "id": "desk-2", "priority": "urgent", "reason": "fat finger"},
    {**CANCEL, "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
    {**CANCEL, "x_desk": "", "x_note": "line\nline\x00 ok", "x_Any.name:1-2": "ü"},
    {**CANCEL, "x_": "1", "x_grün": "2", "x_a b\n": "3", "x_" + "a" * 300: "4"},
]


@pytest.mark.parametrize("fields", GOOD)
def test_everything_the_contract_allows_is_accepted(fields: dict[str, str]) -> None:
    judged = accepted(fields)
    assert judged.fields.items() >= {name: value for name, value in fields.items() if name != "id"}.items()


BAD = [
    ({"symbl": "BTCUSDT", "order_id": "1"}, "symbl", 'did you mean "symbol"?'),
    ({**CANCEL, "clientOrderId": "1"}, "clientOrderId", 'did you mean "client_order_id"?'),
    ({}, "symbol", "missing"),
    ({"symbol": "BTCUSDT"}, "order_id", "or client_order_id"),
    ({"order_id": "1"}, "symbol", "missing"),
    ({"scope": "tpsl", "symbol": "BTCUSDT"}, "order_id", "missing"),
    ({"scope": "symbol"}, "symbol", "missing"),
    ({"scope": "revoke"}, "target", "missing"),
    ({"scope": "revoke", "target": "a,b"}, "target", "the id of the intent"),
    ({"scope": "revoke", "target": "k", "id": "k"}, "target", "names this intent itself"),
    ({"scope": "revoke", "target": "k", "symbol": "BTCUSDT"}, "symbol", "no meaning in scope revoke"),
    ({"scope": "revoke", "target": "k", "not_before_ms": "1"}, "not_before_ms", "no meaning in scope revoke"),
    ({"scope": "account", "symbol": "BTCUSDT"}, "symbol", "no meaning in scope account"),
    ({"scope": "symbol", "symbol": "B", "order_id": "1"}, "order_id", "no meaning in scope symbol"),
    ({"scope": "symbol", "symbol": "B", "only_if": "NEW"}, "only_if", "only in order"),
    ({**CANCEL, "kinds": "order"}, "kinds", "only in symbol or account"),
    ({**CANCEL, "older_than_ms": "1"}, "older_than_ms", "only in symbol or account"),
    ({**CANCEL, "target": "k"}, "target", "only in revoke"),
    ({**CANCEL, "scope": "Symbol"}, "scope", 'did you mean "symbol"?'),
    ({**CANCEL, "scope": ""}, "scope", "empty"),
    ({**CANCEL, "priority": "high"}, "priority", "wants normal or urgent"),
    ({**CANCEL, "only_if": "new"}, "only_if", 'did you mean "NEW"?'),
    ({**CANCEL, "v": "2"}, "v", "wants 1"),
    ({"symbol": "BTC/USDT", "order_id": "1"}, "symbol", "as the venue spells it"),
    ({"symbol": "B" * 33, "order_id": "1"}, "symbol", "as the venue spells it"),
    ({"symbol": "BTCUSDT", "order_id": ""}, "order_id", "empty"),
    ({"symbol": "BTCUSDT", "order_id": "1,2"}, "order_id", "',' is not allowed"),
    ({"symbol": "BTCUSDT", "order_id": "1 2"}, "order_id", "' ' is not allowed"),
    ({"symbol": "BTCUSDT", "order_id": '"1"'}, "order_id", "is not allowed"),
    ({"symbol": "BTCUSDT", "order_id": "1\r\nDEL"}, "order_id", r"'\r' is not allowed"),
    ({"symbol": "BTCUSDT", "client_order_id": "é"}, "client_order_id", r"'\xe9' is not allowed"),
    ({"symbol": "BTCUSDT", "order_id": "1" * 65}, "order_id", "65 characters are too many"),
    ({"scope": "account", "client_prefix": ""}, "client_prefix", "empty"),
    ({"scope": "account", "kinds": ""}, "kinds", "empty"),
    ({"scope": "account", "kinds": "order, stop"}, "kinds", "no blanks"),
    ({"scope": "account", "kinds": "order,order"}, "kinds", "each once"),
    ({"scope": "account", "kinds": "orders"}, "kinds", "comma list of order, tpsl or stop"),
    ({**CANCEL, "expires_at_ms": "-1"}, "expires_at_ms", "plain digits"),
    ({**CANCEL, "expires_at_ms": "1e12"}, "expires_at_ms", "plain digits"),
    ({**CANCEL, "expires_at_ms": "٣"}, "expires_at_ms", "plain digits"),
    ({**CANCEL, "expires_at_ms": " 1"}, "expires_at_ms", "plain digits"),
    ({**CANCEL, "expires_at_ms": "1700000000"}, "expires_at_ms", "look like seconds"),
    ({**CANCEL, "expires_at_ms": "1700000000000000"}, "expires_at_ms", "micro- or nanoseconds"),
    ({**CANCEL, "expires_at_ms": "9" * 3000}, "expires_at_ms", "3000 digits"),
    ({**CANCEL, "not_before_ms": "5", "expires_at_ms": "5"}, "expires_at_ms", "not after not_before_ms"),
    ({**CANCEL, "strategy": "a\nb"}, "strategy", r"'\n' is not allowed"),
    ({**CANCEL, "reason": "a\x85b"}, "reason", "is not allowed"),
    ({**CANCEL, "reason": "a" * 65}, "reason", "65 characters are too many"),
    ({**CANCEL, "traceparent": "00-" + "0" * 32 + "-00f067aa0ba902b7-01"}, "traceparent", "W3C"),
    (
        {**CANCEL, "traceparent": "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
        "traceparent",
        "W3C",
    ),
    ({**CANCEL, "\x00\r\n": "1"}, r"\x00\r\n", "unknown field"),
    ({**CANCEL, "": "1"}, "(empty name)", "unknown field"),
    ({**CANCEL, "n" * 3000: "1"}, "n" * 40 + "...", "unknown field"),
]


@pytest.mark.parametrize(("fields", "field", "says"), BAD)
def test_what_can_never_work_is_refused_by_field_with_a_remedy(fields: dict[str, str], field: str, says: str) -> None:
    judged = refused(fields)
    assert judged.field == field
    assert says in judged.detail
    assert judged.id == fields.get("id", ENTRY_ID)


@pytest.mark.parametrize("scope", [{"scope": "symbol", "symbol": "BTCUSDT"}, {"scope": "account"}], ids=str)
def test_a_sweep_that_waits_for_longer_than_it_lives_is_refused_at_once(scope: dict[str, str]) -> None:
    ends_ms = int(ENTRY_ID.partition("-")[0]) + BULK_EXPIRES_AFTER_MS
    judged = refused({**scope, "not_before_ms": str(ends_ms)})
    assert judged.field == "expires_at_ms"
    assert "expires 60 s after it was queued" in judged.detail
    accepted({**scope, "not_before_ms": str(ends_ms - 1)})
    accepted({**scope, "not_before_ms": str(ends_ms), "expires_at_ms": str(ends_ms + 1)})
    accepted({**CANCEL, "not_before_ms": str(ends_ms)})
    due_ms = time.time_ns() // 1_000_000 + 2 * BULK_EXPIRES_AFTER_MS
    with pytest.raises(IntentError, match="expires_at_ms: missing"):
        wire_fields({**scope, "not_before_ms": due_ms})
    assert wire_fields({**scope, "not_before_ms": due_ms, "expires_at_ms": due_ms + 1})


@pytest.mark.parametrize("bad_id", ["", "1-2", "1700000000000-0", "a b", "é", "a" * 65, "a\n"])
def test_an_unusable_id_is_answered_under_the_entry_id(bad_id: str) -> None:
    judged = refused({**CANCEL, "symbl": "also wrong", "id": bad_id})
    assert (judged.field, judged.id, judged.explicit_id) == ("id", ENTRY_ID, False)


def test_a_usable_id_is_answered_under_itself() -> None:
    judged = refused({"id": "desk-1", "symbl": "BTCUSDT"})
    assert (judged.id, judged.explicit_id) == ("desk-1", True)


def test_the_value_of_an_unknown_field_is_never_repeated() -> None:
    judged = refused({**CANCEL, "api_key": "SECRETSECRET", "x_desk": "delta"})
    assert "SECRET" not in judged.detail
    assert "SECRET" not in str(judged.fields)


def test_a_refused_entry_still_tells_what_it_was_about() -> None:
    judged = refused(
        {
            **CANCEL,
            "strategy": "mm",
            "reason": "a\nb",
            "x_desk": "delta",
            "traceparent": "?",
            "kinds": "order",
        }
    )
    assert judged.fields == {
        **CANCEL,
        "strategy": "mm",
        "x_desk": "delta",
        "scope": "order",
        "priority": "normal",
    }


def test_a_scope_that_is_not_known_is_not_passed_off_as_the_default() -> None:
    assert "scope" not in refused({**CANCEL, "scope": "everything"}).fields


@pytest.mark.parametrize(
    ("raw", "field", "says"),
    [
        ([b"symbol", b"BTCUSDT", b"order_id", b"1", b"symbol", b"ETHUSDT"], "symbol", "more than once"),
        ([b"symbol", b"BTCUSDT", b"order_id", b"\xff"], "order_id", "not UTF-8"),
        ([b"symbol", b"BTCUSDT", b"x_note", b"\xc3("], "x_note", "not UTF-8"),
        ([b"\xff\xfe", b"1", b"symbol", b"BTCUSDT"], r"\xff\xfe", "not UTF-8"),
        ([b"symbol"], "entry", "without a value"),
        ([b"symbol", b"BTCUSDT", b"order_id"], "entry", "without a value"),
        ([b"order_id", b"1"] * 3000, "order_id", "more than once"),
        ([text for at in range(3000) for text in (b"x_%d" % at, b"")], "entry", "3000 fields"),
        ([b"symbol", b"BTCUSDT", b"order_id", b"1", b"x_note", b"n" * 5000], "x_note", "4096 are allowed"),
        ([b"n" * 70_000, b"", b"x_note", b"1"], "n" * 40 + "...", "4096 are allowed"),
    ],
)
def test_a_malformed_entry_is_refused_by_field(raw: list[bytes], field: str, says: str) -> None:
    judged = refused(raw)
    assert judged.field == field
    assert says in judged.detail


@pytest.mark.parametrize(
    "raw", [[b"id", b"k", b"id", b"k"], [b"id", b"\xff"], [b"\xff", b"1", b"id", b"k", b"id", b"k"]]
)
def test_an_id_that_cannot_be_told_is_unusable(raw: list[bytes]) -> None:
    judged = refused(raw)
    assert (judged.field, judged.id, judged.explicit_id) == ("id", ENTRY_ID, False)


def test_a_malformed_entry_is_answered_under_its_id_if_that_can_be_read() -> None:
    judged = refused([b"id", b"k", b"symbol", b"\xff", b"strategy", b"mm"])
    assert (judged.id, judged.explicit_id, judged.fields["strategy"]) == ("k", True, "mm")


def test_an_entry_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    room = MAX_ENTRY_BYTES - sum(map(len, flat(CANCEL))) - len("x_note")
    accepted({**CANCEL, "x_note": "n" * room})
    assert refused({**CANCEL, "x_note": "n" * (room + 1)}).field == "x_note"


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ([text for at in range(50_000) for text in (b"x_%d" % at, b"")], "entry"),
        ([b"id", b"k", b"x_note", b"n" * 20_000_000], "x_note"),
        ([b"id", b"n" * 20_000_000], "id"),
    ],
)
def test_of_a_huge_entry_only_the_head_is_looked_at(raw: list[bytes], field: str) -> None:
    judged = refused(raw)
    assert judged.field == field
    assert sum(len(name) + len(value) for name, value in judged.fields.items()) < MAX_ENTRY_BYTES
    assert judged.id == ("k" if b"k" in raw[:2] else ENTRY_ID)


def test_what_is_copied_from_a_refused_entry_stays_within_the_limit() -> None:
    judged = refused({f"x_{at}": "n" * 1000 for at in range(100)})
    assert 0 < sum(len(name) + len(value) for name, value in judged.fields.items()) < MAX_ENTRY_BYTES + 100


def test_equal_content_has_an_equal_digest() -> None:
    digest = accepted(CANCEL).digest
    assert len(digest) == 8
    assert int(digest, 16) >= 0
    same = [
        {"id": "k", "v": "1", **CANCEL},
        {"order_id": "121211212122", "symbol": "BTCUSDT"},
        {**CANCEL, "scope": "order", "priority": "normal"},
        {**CANCEL, "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
    ]
    assert {accepted(fields).digest for fields in same} == {digest}


def test_other_content_has_another_digest() -> None:
    entries = [
        CANCEL,
        {**CANCEL, "order_id": "121211212123"},
        {**CANCEL, "symbol": "ETHUSDT"},
        {**CANCEL, "priority": "urgent"},
        {**CANCEL, "x_a": "1"},
        {**CANCEL, "x_a": "", "x_b": ""},
        {**CANCEL, "x_a": "0:x_b=0:"},
        {"symbol": "BTCUSDT", "client_order_id": "121211212122"},
    ]
    assert len({accepted(fields).digest for fields in entries}) == len(entries)


def test_a_resend_has_the_digest_of_the_first_although_its_default_expiry_is_later() -> None:
    fields = {"scope": "account", "id": "k"}
    first, again = accepted(fields, "1700000000000-0"), accepted(fields, "1700000009000-0")
    assert first.fields != again.fields
    assert first.digest == again.digest


def test_refused_entries_have_a_digest_of_their_content_too() -> None:
    digest = refused({"symbl": "B", "id": "k"}).digest
    assert digest == refused({"id": "other", "symbl": "B"}).digest
    assert digest != refused({"symbl": "C"}).digest


@pytest.mark.parametrize("origin", ["a", "1763690000000-0", "redrive-0a1b", "x" * 64])
def test_an_origin_is_kept_and_may_be_an_entry_id(origin: str) -> None:
    entry = {b"symbol": b"BTCUSDT", b"order_id": b"1", b"origin": origin.encode()}
    read = read_entry("1-1", entry)
    assert isinstance(read, Accepted)
    assert read.fields["origin"] == origin


@pytest.mark.parametrize("origin", ["", "a b", "x" * 65, "a/b", "ä"])
def test_an_origin_that_is_no_id_is_refused(origin: str) -> None:
    read = read_entry("1-1", {b"symbol": b"BTCUSDT", b"order_id": b"1", b"origin": origin.encode()})
    assert isinstance(read, Refused)
    assert (read.field, "origin" in read.fields) == ("origin", False)


def test_no_intent_stands_for_itself() -> None:
    read = read_entry("1-1", {b"symbol": b"BTCUSDT", b"order_id": b"1", b"id": b"a", b"origin": b"a"})
    assert isinstance(read, Refused)
    assert read.detail == "origin: names this intent itself; an intent that stands for another has an id of its own"
