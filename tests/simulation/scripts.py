"""The project's own Lua scripts, run in Lua 5.1 as a server runs them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from lupa.lua51 import LuaRuntime, lua_type  # type: ignore[import-untyped]  # it has no stubs
from redis.exceptions import ResponseError

Run = Callable[[bytes, Sequence[bytes]], Any]

# `redis`, `cjson`, KEYS and ARGV are a script's own; nothing of one call is left for the next.
_HEAD = b"return function(redis, cjson, KEYS, ARGV) "
_PACK = b"function(...) return {...} end"
_SPREAD = b"function(t) local n = 0 while t[n + 1] ~= nil do n = n + 1 end return n, unpack(t, 1, n) end"
_REDIS = b"function(call, pcall_, sha) return {call = call, pcall = pcall_, sha1hex = sha} end"
_CJSON = b"function(decode) return {decode = decode} end"


class ScriptHost:
    """A Lua state in which every script is compiled once; `run` is lent to it by the store whose script runs."""

    def __init__(self) -> None:
        self._run: Run = _nothing
        self._lua = lua = LuaRuntime(encoding=None, unpack_returned_tuples=False, register_eval=False)
        self._pack = lua.eval(_PACK)
        self._spread = lua.eval(_SPREAD)
        self._redis = lua.eval(_REDIS)(self._call, self._pcall, _sha1hex)
        self._cjson = lua.eval(_CJSON)(self._decode)
        self._compiled: dict[bytes, Any] = {}
        self._full: set[bytes] = set()

    def load(self, source: bytes) -> bytes:
        """Compiles a script; its SHA-1."""
        sha = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
        if sha not in self._compiled:
            head, _, rest = source.partition(b"\n")
            if head.startswith(b"#!"):
                if re.search(rb"flags=\S*allow-oom", head):
                    self._full.add(sha)
                source = b"\n" + rest
            self._compiled[sha] = self._lua.execute(_HEAD + source + b"\nend")
        return sha

    def allows_full(self, sha: bytes) -> bool:
        """Whether the script says that it may run while memory is full."""
        return sha in self._full

    def call(self, run: Run, sha: bytes, keys: Sequence[bytes], args: Sequence[bytes]) -> Any:
        """The script's reply as a client reads it. `run` carries out its commands."""
        self._run, pack = run, self._pack
        # Lua's stack takes some 8,000 values at once.
        packed = pack(*args) if len(args) < 7_000 else self._lua.table_from(list(args))
        return self._out(self._compiled[sha](self._redis, self._cjson, pack(*keys), packed))

    def _call(self, name: bytes, *args: Any) -> Any:
        for arg in args:
            if type(arg) is not bytes:
                args = tuple([_word(arg) for arg in args])
                break
        reply = self._run(name, args)
        kind = type(reply)
        if kind is int or kind is bytes:
            return reply
        if reply is None:
            return False
        return self._in(reply)

    def _pcall(self, name: bytes, *args: Any) -> Any:
        try:
            return self._call(name, *args)
        except ResponseError as error:
            return self._lua.table_from({b"err": str(error).encode()})

    def _in(self, reply: Any) -> Any:
        """A reply as a script sees it."""
        if reply is None:
            return False
        kind = type(reply)
        if kind is int or kind is bytes:
            return reply
        if kind is list:
            return self._pack(*[part if type(part) is bytes else self._in(part) for part in reply])
        return self._lua.table_from({b"ok": bytes(reply)})

    def _out(self, value: Any) -> Any:
        """What a script returned as a client sees it: a table up to its first hole, numbers cut to whole ones."""
        kind = type(value)
        if kind is bytes or kind is int:
            return value
        if kind is float:
            return int(value)
        if kind is bool:
            return 1 if value else None
        if value is None:
            return None
        spread = self._spread(value)
        if type(spread) is not tuple:
            return []
        return [self._out(part) for part in spread[1:]]

    def _decode(self, text: bytes) -> Any:
        try:
            return self._table(orjson.loads(text))
        except orjson.JSONDecodeError as error:
            raise ResponseError(f"user_script: {error}") from error

    def _table(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self._lua.table_from({name.encode(): self._table(part) for name, part in value.items()})
        if isinstance(value, list):
            return self._pack(*[self._table(part) for part in value])
        return value.encode() if isinstance(value, str) else value


def _nothing(name: bytes, words: Sequence[bytes]) -> Any:
    raise ResponseError("no script runs")


def _word(arg: Any) -> bytes:
    """An argument of `redis.call` as the command gets it."""
    if type(arg) is bytes:
        return arg
    if type(arg) is int:
        return b"%d" % arg
    if type(arg) is float:
        return b"%d" % int(arg) if arg.is_integer() and abs(arg) < 1e17 else b"%.17g" % arg
    raise ResponseError(
        f"Lua redis lib command arguments must be strings or integers, not {lua_type(arg) or type(arg)}"
    )


def _sha1hex(text: Any) -> bytes:
    return hashlib.sha1(_word(text), usedforsecurity=False).hexdigest().encode()


HOST = ScriptHost()
