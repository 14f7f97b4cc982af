"""`Intent` and `wire_fields`: what a producer builds is what a worker reads."""

import pytest
from pydantic import ValidationError

from cancelq.contract import Intent, Scope, wire_fields
from cancelq.errors import CancelqError, IntentError


def test_an_intent_travels_as_what_differs_from_the_defaults() -> None:
    intent = Intent(symbol="BTCUSDT", order_id="121211212122")
    assert intent.to_fields() == {"symbol": "BTCUSDT", "order_id": "121211212122"}
    assert (intent.scope, intent.priority, intent.id) == (Scope.order, "normal", None)


def test_every_field_travels() -> None:
    intent = Intent(
        id="k",
        scope=Scope.symbol,
        kinds=("stop", "order"),
        older_than_ms=1_700_000_000_000,
        client_prefix="mm-",
        symbol="BTCUSDT",
        priority="urgent",
        not_before_ms=1_700_000_000_001,
        expires_at_ms=1_700_000_000_002,
        strategy="mm",
        reason="stale",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        extras={"x_desk": "delta"},
    )
    assert intent.to_fields() == {
        "id": "k",
        "scope": "symbol",
        "kinds": "order,stop",
        "older_than_ms": "1700000000000",
        "client_prefix": "mm-",
        "symbol": "BTCUSDT",
        "priority": "urgent",
        "not_before_ms": "1700000000001",
        "expires_at_ms": "1700000000002",
        "strategy": "mm",
        "reason": "stale",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "x_desk": "delta",
    }
    assert Intent.model_validate(intent.to_fields()) == intent
    assert Intent.model_validate(intent.model_dump()) == intent
    assert Intent.model_validate_json(intent.model_dump_json()) == intent


def test_fields_as_they_stand_in_a_file_are_understood() -> None:
    intent = Intent.model_validate(
        {
            "v": "1",
            "scope": "account",
            "kinds": "tpsl",
            "older_than_ms": "0017",
            "x_desk": "delta",
            "reason": None,
        }
    )
    assert (intent.kinds, intent.older_than_ms, intent.extras) == (("tpsl",), 17, {"x_desk": "delta"})


def test_an_intent_does_not_change() -> None:
    intent = Intent(symbol="BTCUSDT", order_id="1")
    with pytest.raises(ValidationError, match="frozen"):
        intent.order_id = "2"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "field", "says"),
    [
        ({"symbol": "BTCUSDT", "order_id": 121211212122}, "order_id", "put it in quotes"),
        ({"symbol": "BTCUSDT", "order_id": b"1"}, "order_id", "wants text, got bytes"),
        ({"scope": "account", "older_than_ms": 1.7e12}, "older_than_ms", "wants an integer, got float"),
        ({"scope": "account", "older_than_ms": True}, "older_than_ms", "wants an integer, got bool"),
        ({"scope": "account", "older_than_ms": -1}, "older_than_ms", "plain digits"),
        ({"scope": "account", "older_than_ms": 10**5000}, "older_than_ms", "micro- or nanoseconds"),
        ({"scope": "account", "kinds": ["order", 1]}, "kinds", "wants text, got list"),
        ({"scope": "account", "kinds": []}, "kinds", "empty"),
        ({"symbl": 1}, "symbl", 'did you mean "symbol"?'),
        ({"extras": {"desk": "delta"}}, "extras", "'desk' is no name of an extra field"),
        ({"extras": "x_desk"}, "extras", "wants a mapping"),
        ({"extras": {"x_desk": 1}}, "x_desk", "wants text, got int"),
        ({"extras": {"x_desk": "1"}, "x_desk": "2"}, "x_desk", "more than once"),
        ({"x_desk": "\ud800", "symbol": "BTCUSDT", "order_id": "1"}, "x_desk", "surrogate"),
        ({"strategy": "\udfff", "symbol": "BTCUSDT", "order_id": "1"}, "strategy", "is not allowed"),
        ({"\ud800": "1"}, r"\ud800", "unknown field"),
        ({1: "1"}, "entry", "names of fields are text"),
        ({"x_note": "n" * 5000, "symbol": "BTCUSDT", "order_id": "1"}, "x_note", "4096 are allowed"),
        ({**{f"x_{at}": "" for at in range(200)}, "scope": "account"}, "entry", "201 fields"),
        ({"symbol": "BTCUSDT"}, "order_id", "missing"),
    ],
)
def test_what_a_worker_would_refuse_is_not_built(values: dict[str, object], field: str, says: str) -> None:
    with pytest.raises(IntentError) as of_fields:
        wire_fields(values)
    with pytest.raises(IntentError) as of_intent:
        Intent.model_validate(values)
    assert of_fields.value.field == of_intent.value.field == field
    assert of_fields.value.detail == of_intent.value.detail
    assert says in of_fields.value.detail
    assert str(of_fields.value).isprintable()


@pytest.mark.parametrize("value", ["scope=account", None, 1, [("scope", "account")]])
def test_only_named_fields_make_an_intent(value: object) -> None:
    with pytest.raises(IntentError, match="fields by name"):
        Intent.model_validate(value)


def test_an_intent_error_is_an_error_of_this_package() -> None:
    assert issubclass(IntentError, CancelqError)
    assert str(IntentError("symbol", "symbol: missing", 3)) == "intent 3 of the batch: symbol: missing"
