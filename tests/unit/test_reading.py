"""What is read of a venue's text before anybody asks what it means."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancelq_worker.venues.port import Answer
from cancelq_worker.venues.reading import object_of, payload

TWICE = [
    b'{"status":"live","status":"cancelled"}',
    b'{"data":[{"orderId":"1","status":"live","status":"cancelled"}]}',
    b'{"a":1,"\\u0061":2}',
    b'{"a" :1,"b":2,"b":3}',
    b'{"a"\n:1,"a":2}',
    b'{"":1,"":2}',
    b'{"a":"\\":","b":1,"b":2}',
]
ONCE = [
    b'{"a":{"a":1},"b":[{"a":1},{"a":2}]}',
    b'{"a" : 1, "b" :2}',
    b'{"a":"\\":"}',
    b'{"a":":","b":"\\"b\\":1"}',
    b"{}",
]
names = st.text(max_size=3)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize("text", TWICE)
def test_an_object_that_says_one_name_twice_is_not_read(text: bytes) -> None:
    assert object_of(text) is None
    assert object_of(text.decode()) is None
    assert payload(Answer(200, {}, text)) is None


@pytest.mark.parametrize("text", ONCE)
def test_a_name_in_several_objects_or_in_a_text_is_no_repeat(text: bytes) -> None:
    assert object_of(text) == json.loads(text)


@given(st.dictionaries(names, values, max_size=4), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_whatever_json_says_once_is_read_as_it_is(
    held: dict[str, object], indent: int | str | None, plain: bool
) -> None:
    text = json.dumps(held, indent=indent, ensure_ascii=plain, separators=(",", ":") if plain else (" , ", " : "))
    assert object_of(text) == held
    assert object_of(text.encode()) == held


@given(st.dictionaries(names, values, min_size=1, max_size=4), values, st.data())
def test_a_name_that_is_repeated_anywhere_is_noticed(
    held: dict[str, object], other: object, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(held)))
    inner = json.dumps(held)[:-1] + f", {json.dumps(name)}: {json.dumps(other)}}}"
    outer = data.draw(st.sampled_from(["%s", '{"data":%s}', '{"data": [[%s]]}']))
    assert object_of(outer % inner) is None


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"1", b"pong", b"\xff\xfe", b'{"a":', b"[" * 2000, b'{"a":NaN}'])
def test_what_is_no_object_is_none(text: bytes) -> None:
    assert object_of(text) is None
