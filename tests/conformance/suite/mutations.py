"""Recorded answers with something wrong in them: as a venue, a gateway or a bad day might send them."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

JUNK: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([None, True, False, [], {}, [[]], [None], [{}], {"list": None}, {"orderList": []}]),
    st.sampled_from([0, -1, 10**15, 2**63, 2**64, 1.5, 1e300]),
    st.sampled_from(["", " ", "0", "-1", "1e5", "null", "filled", "²", "Ω", "\x00", "9" * 400, "x" * 3_000]),
    st.text(max_size=12),
    st.integers(-(2**63), 2**64 - 1),
)
STATUSES = st.sampled_from([200, 200, 200, 201, 204, 301, 302, 400, 401, 403, 404, 408, 418, 429, 500, 502, 503, 504])
#: Bodies that are no object, or one that says nothing.
NOISE: st.SearchStrategy[bytes] = st.one_of(
    st.sampled_from([b"", b" ", b"null", b"true", b"[]", b"{}", b'""', b"0", b"NaN", b"[{}]", b"1" * 5_000]),
    st.sampled_from([b"\xff\xfe", b"\x00" * 9, b'{"code":', b'{"code":"00000","msg":"succ\xff"}', b'{"retCode":0']),
    st.sampled_from([b"<html><body>Just a moment...</body></html>", b"[" * 2_000, b'{"a":' * 500]),
    st.sampled_from([b'\xef\xbb\xbf{"code":0}', b'{"code":0}{"code":0}']),
    st.binary(max_size=40),
)

Path = tuple[str | int, ...]


def mutated(value: Any) -> st.SearchStrategy[Any]:
    """That value with one to three of its places replaced, dropped, repeated, or exchanged for one another."""
    return st.composite(_mutate)(value)


def _mutate(draw: st.DrawFn, value: Any) -> Any:
    made = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        paths = _paths(made)
        if not paths:
            return made
        path = draw(st.sampled_from(paths))
        draw(st.sampled_from([_replace, _replace, _drop, _repeat, _exchange]))(draw, made, path)
    return made


def _replace(draw: st.DrawFn, root: Any, path: Path) -> None:
    _parent(root, path)[path[-1]] = copy.deepcopy(draw(JUNK))


def _drop(draw: st.DrawFn, root: Any, path: Path) -> None:
    del _parent(root, path)[path[-1]]


def _repeat(draw: st.DrawFn, root: Any, path: Path) -> None:
    """The same item again, perhaps with another value in it."""
    parent, item = _parent(root, path), copy.deepcopy(_parent(root, path)[path[-1]])
    if isinstance(item, dict) and item:
        item[draw(st.sampled_from(sorted(item)))] = draw(JUNK)
    if isinstance(parent, list):
        parent.append(item)
    else:
        parent[path[-1]] = [item, copy.deepcopy(item)]


def _exchange(draw: st.DrawFn, root: Any, path: Path) -> None:
    other = draw(st.sampled_from(_paths(root)))
    if path[: len(other)] == other or other[: len(path)] == path:
        return
    first, second = _parent(root, path), _parent(root, other)
    first[path[-1]], second[other[-1]] = second[other[-1]], first[path[-1]]


def _paths(value: Any, at: Path = ()) -> list[Path]:
    """Every place in it, but for the whole."""
    found: list[Path] = [at] if at else []
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        found += _paths(item, (*at, name))
    return found


def _parent(root: Any, path: Path) -> Any:
    for name in path[:-1]:
        root = root[name]
    return root
