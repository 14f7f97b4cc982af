"""An in-memory subset of the server: the commands that the project's scripts and clients use, on virtual time.

Replies are what a client reads of protocol 2. Scripts are run by `scripts.py`, in Lua 5.1 as a server runs them. A
property test sends the same commands here and to real servers (`test_store.py`). What is not here is refused as an
unknown command.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from tests.simulation.keyspace import (
    SortedSet,
    Stream,
    StreamId,
    flags,
    id_text,
    is_within,
    number,
    read_id,
    shown,
)
from tests.simulation.scripts import HOST

Words = Sequence[bytes]
WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
OUT_OF_MEMORY = "command not allowed when used memory > 'maxmemory'."


class Simple(bytes):
    """A status reply: the same to a client, a table to a script."""


OK = Simple(b"OK")


class Store:
    """The server's data and commands. `now_us`: its wall clock, UTC."""

    def __init__(self, now_us: Callable[[], int], run_id: str) -> None:
        self.now_us = now_us
        self.run_id = run_id
        self.full = False
        self.unknown: set[str] = set()  # commands that were asked for and are not here
        self.keys: dict[bytes, Any] = {}
        self.ends_ms: dict[bytes, int] = {}
        self.loaded: dict[bytes, bytes] = {}  # the name of a script, and what it is compiled as
        self.loading_as: Callable[[bytes], bytes] = lambda source: source  # a script as it is run
        self.grown: list[bytes] = []  # streams that grew since somebody looked
        self._frozen_us: int | None = None

    # -- as a whole ---------------------------------------------------------------------------------------------------

    def execute(self, words: Words) -> Any:
        """One command of a client. Raises ResponseError where the server would refuse it."""
        name = words[0].upper()
        if name == b"EVALSHA":
            return self._script(words)
        if self.full and name in _DENY_OOM:
            raise OutOfMemoryError(OUT_OF_MEMORY)
        return self.run(name, words[1:])

    def run(self, name: bytes, words: Words) -> Any:
        """The same, for scripts: nothing is refused for memory's sake."""
        command = _COMMANDS.get(name)
        if command is None:
            self.unknown.add(name.decode())
            raise ResponseError(f"unknown command '{name.decode()}'")
        return command(self, words)

    def _script(self, words: Words) -> Any:
        sha = words[1].lower()
        if sha not in self.loaded:
            raise NoScriptError("No matching script. Please use EVAL.")
        sha = self.loaded[sha]
        if self.full and not HOST.allows_full(sha):
            raise OutOfMemoryError(OUT_OF_MEMORY)
        keys = int(words[2])
        # Time stands still while a script runs, for expiry too.
        self._frozen_us = self.now_us()
        try:
            return HOST.call(self.run, sha, words[3 : 3 + keys], words[3 + keys :])
        finally:
            self._frozen_us = None

    def copy(self) -> tuple[dict[bytes, Any], dict[bytes, int]]:
        """What a disk would hold of it now."""
        return {key: value if isinstance(value, bytes) else value.copy() for key, value in self.keys.items()}, dict(
            self.ends_ms
        )

    def restart(self, run_id: str, kept: tuple[dict[bytes, Any], dict[bytes, int]] | None = None) -> None:
        """Another process with the same data, or with what was kept: no script is loaded."""
        self.run_id = run_id
        self.loaded.clear()
        self.full = False
        if kept is not None:
            self.keys, self.ends_ms = kept

    def time_us(self) -> int:
        return self.now_us() if self._frozen_us is None else self._frozen_us

    def get(self, key: bytes, kind: type) -> Any:
        """What a key holds, None if there is nothing. Raises ResponseError where it is something else."""
        value = self.keys.get(key)
        if value is None:
            return None
        if key in self.ends_ms and self.ends_ms[key] <= self.time_us() // 1000:
            self._drop(key)
            return None
        if type(value) is not kind:
            raise ResponseError(WRONG_TYPE)
        return value

    def exists(self, key: bytes) -> bool:
        value = self.keys.get(key)
        return value is not None and self.get(key, type(value)) is not None

    def _drop(self, key: bytes) -> None:
        self.keys.pop(key, None)
        self.ends_ms.pop(key, None)

    def _made(self, key: bytes, kind: type) -> Any:
        value = self.get(key, kind)
        if value is None:
            value = self.keys[key] = kind()
        return value

    # -- keys and strings ---------------------------------------------------------------------------------------------

    def _del(self, a: Words) -> int:
        found = [key for key in a if self.exists(key)]
        for key in found:
            self._drop(key)
        return len(set(found))

    def _exists(self, a: Words) -> int:
        return sum(self.exists(key) for key in a)

    def _expire(self, a: Words) -> int:
        return self._expire_ms(a[0], int(a[1]) * 1000)

    def _pexpire(self, a: Words) -> int:
        return self._expire_ms(a[0], int(a[1]))

    def _expire_ms(self, key: bytes, for_ms: int) -> int:
        if not self.exists(key):
            return 0
        if for_ms <= 0:
            self._drop(key)
        else:
            self.ends_ms[key] = self.time_us() // 1000 + for_ms
        return 1

    def _pttl(self, a: Words) -> int:
        if not self.exists(a[0]):
            return -2
        end = self.ends_ms.get(a[0])
        return -1 if end is None else end - self.time_us() // 1000

    def _get(self, a: Words) -> bytes | None:
        found: bytes | None = self.get(a[0], bytes)
        return found

    def _mget(self, a: Words) -> list[bytes | None]:
        return [found if type(found := self.keys.get(key)) is bytes and self.exists(key) else None for key in a]

    def _getdel(self, a: Words) -> bytes | None:
        found = self._get(a)
        self._drop(a[0])
        return found

    def _set(self, a: Words) -> Any:
        key, value, options = a[0], a[1], [word.upper() for word in a[2:]]
        if b"NX" in options and self.exists(key):
            return None
        self._drop(key)
        for word, unit_ms in ((b"PX", 1), (b"EX", 1000)):
            if word in options:
                for_ms = int(options[options.index(word) + 1]) * unit_ms
                if for_ms <= 0:
                    raise ResponseError("invalid expire time in 'set' command")
                self.ends_ms[key] = self.time_us() // 1000 + for_ms
        self.keys[key] = bytes(value)
        return OK

    # -- hashes -------------------------------------------------------------------------------------------------------

    def _hset(self, a: Words) -> int:
        table = self._made(a[0], dict)
        before = len(table)
        table.update(zip(a[1::2], a[2::2], strict=True))
        return len(table) - before

    def _hget(self, a: Words) -> bytes | None:
        table = self.get(a[0], dict)
        return table.get(a[1]) if table else None

    def _hmget(self, a: Words) -> list[bytes | None]:
        table = self.get(a[0], dict) or {}
        return [table.get(field) for field in a[1:]]

    def _hgetall(self, a: Words) -> list[bytes]:
        table = self.get(a[0], dict) or {}
        return [word for pair in table.items() for word in pair]

    def _hdel(self, a: Words) -> int:
        table = self.get(a[0], dict)
        if table is None:
            return 0
        gone = sum(table.pop(field, None) is not None for field in a[1:])
        if not table:
            self._drop(a[0])
        return gone

    def _hexists(self, a: Words) -> int:
        return int(a[1] in (self.get(a[0], dict) or {}))

    def _hlen(self, a: Words) -> int:
        return len(self.get(a[0], dict) or {})

    def _hincrby(self, a: Words) -> int:
        table = self.get(a[0], dict) or {}
        word = table.get(a[1], b"0")
        if not word.removeprefix(b"-").isdigit():
            raise ResponseError("hash value is not an integer")
        value = int(word) + int(a[2])
        self._made(a[0], dict)[a[1]] = b"%d" % value
        return value

    # -- sets ---------------------------------------------------------------------------------------------------------

    def _sadd(self, a: Words) -> int:
        # A dict, so that the order is that of arrival, whatever the seed of Python's own hashes.
        members = self._made(a[0], OrderedSet)
        before = len(members)
        members.update(dict.fromkeys(a[1:]))
        return len(members) - before

    def _srem(self, a: Words) -> int:
        members = self.get(a[0], OrderedSet)
        if members is None:
            return 0
        before = len(members)
        for member in a[1:]:
            members.pop(member, None)
        gone = before - len(members)
        if not members:
            self._drop(a[0])
        return gone

    def _smembers(self, a: Words) -> list[bytes]:
        return list(self.get(a[0], OrderedSet) or ())

    def _scard(self, a: Words) -> int:
        return len(self.get(a[0], OrderedSet) or ())

    def _sismember(self, a: Words) -> int:
        return int(a[1] in (self.get(a[0], OrderedSet) or ()))

    # -- sorted sets --------------------------------------------------------------------------------------------------

    def _zadd(self, a: Words) -> int:
        options, rest = flags(a[1:], _ZADD_OPTIONS)
        pairs = [(number(score), member) for score, member in zip(rest[::2], rest[1::2], strict=True)]
        members = self.get(a[0], SortedSet)
        if members is None:
            members = self.keys[a[0]] = SortedSet()
        new = 0
        for score, member in pairs:
            before = members.scores.get(member)
            if before is not None and (
                b"NX" in options or (b"LT" in options and score >= before) or (b"GT" in options and score <= before)
            ):
                continue
            if before is None and b"XX" in options:
                continue
            new += members.put(member, score)
        if not members.scores:
            self._drop(a[0])
        return new

    def _zrem(self, a: Words) -> int:
        members = self.get(a[0], SortedSet)
        if members is None:
            return 0
        gone: int = sum(members.drop(member) for member in a[1:])
        if not members.scores:
            self._drop(a[0])
        return gone

    def _zincrby(self, a: Words) -> bytes:
        members = self._made(a[0], SortedSet)
        score = members.scores.get(a[2], 0.0) + number(a[1])
        members.put(a[2], score)
        return shown(score)

    def _zcard(self, a: Words) -> int:
        members = self.get(a[0], SortedSet)
        return len(members.order) if members else 0

    def _zscore(self, a: Words) -> bytes | None:
        members = self.get(a[0], SortedSet)
        score = members.scores.get(a[1]) if members else None
        return None if score is None else shown(score)

    def _zmscore(self, a: Words) -> list[bytes | None]:
        members = self.get(a[0], SortedSet)
        scores = members.scores if members else {}
        return [shown(scores[member]) if member in scores else None for member in a[1:]]

    def _zcount(self, a: Words) -> int:
        members = self.get(a[0], SortedSet)
        first, last = members.between(a[1], a[2]) if members else (0, 0)
        return int(last - first)

    def _zrange(self, a: Words) -> list[bytes]:
        options = [word.upper() for word in a[3:]]
        return self._by_text(a, options) if b"BYLEX" in options else self._by_place(a, backwards=False)

    def _by_text(self, a: Words, options: Words) -> list[bytes]:
        """Of members that all have the same score."""
        least, most = (a[2], a[1]) if b"REV" in options else (a[1], a[2])
        members = self.get(a[0], SortedSet)
        found = [member for _, member in members.order if is_within(member, least, most)] if members else []
        if b"REV" in options:
            found.reverse()
        return found[_limit(options)]

    def _zrevrange(self, a: Words) -> list[bytes]:
        return self._by_place(a, backwards=True)

    def _by_place(self, a: Words, *, backwards: bool) -> list[bytes]:
        members = self.get(a[0], SortedSet)
        if members is None:
            return []
        order = members.order
        start, stop = int(a[1]), int(a[2])
        start = max(0, start + len(order)) if start < 0 else start
        stop = stop + len(order) if stop < 0 else min(stop, len(order) - 1)
        if backwards:
            order = order[::-1]
        return _listed(order[start : stop + 1], len(a) > 3 and a[3].upper() == b"WITHSCORES")

    def _zrangebyscore(self, a: Words) -> list[bytes]:
        return self._by_score(a[0], a[1], a[2], a[3:], backwards=False)

    def _zrevrangebyscore(self, a: Words) -> list[bytes]:
        return self._by_score(a[0], a[2], a[1], a[3:], backwards=True)

    def _by_score(self, key: bytes, least: bytes, most: bytes, options: Words, *, backwards: bool) -> list[bytes]:
        members = self.get(key, SortedSet)
        if members is None:
            return []
        first, last = members.between(least, most)
        words = [word.upper() for word in options]
        with_scores, limit = b"WITHSCORES" in words, _limit(words)
        if backwards:
            return _listed(members.order[first:last][::-1][limit], with_scores)
        end = last if limit.stop is None else min(last, first + limit.stop)  # what is not asked for is not copied
        return _listed(members.order[first + limit.start : end], with_scores)

    def _zremrangebyscore(self, a: Words) -> int:
        members = self.get(a[0], SortedSet)
        if members is None:
            return 0
        first, last = members.between(a[1], a[2])
        for _, member in members.order[first:last]:
            del members.scores[member]
        del members.order[first:last]
        if not members.scores:
            self._drop(a[0])
        return int(last - first)

    # -- streams ------------------------------------------------------------------------------------------------------

    def _xadd(self, a: Words) -> bytes | None:
        key, rest = a[0], list(a[1:])
        make, trim = True, -1
        while rest and rest[0].upper() in (b"NOMKSTREAM", b"MAXLEN"):
            if rest.pop(0).upper() == b"NOMKSTREAM":
                make = False
            else:
                if rest[0] in (b"~", b"="):
                    rest.pop(0)
                trim = int(rest.pop(0))
        fields = [bytes(word) for word in rest[1:]]
        if not fields or len(fields) % 2:
            raise ResponseError("wrong number of arguments for 'xadd' command")
        asked = None if rest[0] == b"*" else self._asked_id(key, rest[0])
        if asked == (0, 0):
            if not rest[0].endswith(b"-*"):
                raise ResponseError("The ID specified in XADD must be greater than 0-0")
            asked = (0, 1)
        stream = self.get(key, Stream)
        if stream is None and not make:
            return None
        stream = stream or Stream()
        at: StreamId = stream.next_id(self.time_us() // 1000) if asked is None else asked
        stream.add(at, fields)
        self.keys[key] = stream
        if trim >= 0:
            stream.trim_to(trim)
        self.grown.append(key)
        return id_text(at)

    def _asked_id(self, key: bytes, word: bytes) -> StreamId:
        """`5-*` is the next one within that millisecond."""
        ms, _, seq = word.partition(b"-")
        if seq != b"*":
            return read_id(word, 0)
        stream = self.get(key, Stream)
        return int(ms), stream.last[1] + 1 if stream and stream.last[0] == int(ms) else 0

    def _xlen(self, a: Words) -> int:
        stream = self.get(a[0], Stream)
        return len(stream.ids) if stream else 0

    def _xrange(self, a: Words) -> list[Any]:
        return self._xspan(a[0], a[1], a[2], a[3:], backwards=False)

    def _xrevrange(self, a: Words) -> list[Any]:
        return self._xspan(a[0], a[2], a[1], a[3:], backwards=True)

    def _xspan(self, key: bytes, start: bytes, end: bytes, options: Words, *, backwards: bool) -> list[Any]:
        read_id(start.removeprefix(b"("), 0)
        if read_id(end.removeprefix(b"("), 1) == (0, 0) and end[:1] == b"(":
            raise ResponseError("invalid end ID for the interval")
        stream = self.get(key, Stream)
        if stream is None:
            return []
        first, last = stream.span(start, end)
        count = int(options[1]) if options else last - first
        if backwards:
            rows: list[Any] = stream.rows(max(first, last - count), last)[::-1]
            return rows
        return list(stream.rows(first, min(last, first + count)))

    def _xtrim(self, a: Words) -> int:
        """`~` lets a server keep what fills a node only in part: here it keeps all."""
        stream = self.get(a[0], Stream)
        if stream is None or a[2] == b"~":
            return 0
        bound = a[3] if a[2] == b"=" else a[2]
        gone = stream.trim_to(int(bound)) if a[1].upper() == b"MAXLEN" else stream.trim_before(read_id(bound, 0))
        return int(gone)

    def _xgroup(self, a: Words) -> Any:
        stream = self.get(a[1], Stream)
        if a[0].upper() == b"CREATE":
            if stream is None and b"MKSTREAM" not in [word.upper() for word in a[3:]]:
                raise ResponseError("The XGROUP subcommand requires the key to exist.")
            stream = self._made(a[1], Stream)
            if a[2] in stream.groups:
                raise ResponseError("BUSYGROUP Consumer Group name already exists")
            stream.groups.add(a[2])
            return OK
        if stream is None:
            raise ResponseError("The XGROUP subcommand requires the key to exist.")
        there = a[2] in stream.groups
        stream.groups.discard(a[2])
        return int(there)

    def _xread(self, a: Words) -> list[Any] | None:
        """What there is; whoever wants to wait is made to by the connection."""
        words = [word.upper() for word in a]
        at = words.index(b"STREAMS")
        count = int(a[words.index(b"COUNT") + 1]) if b"COUNT" in words[:at] else -1
        half = (len(a) - at - 1) // 2
        found: list[Any] = []
        for key, after in zip(a[at + 1 : at + 1 + half], a[at + 1 + half :], strict=True):
            stream = self.get(key, Stream)
            if stream is None or after == b"$":
                continue
            first = stream.after(read_id(after, 0))
            last = len(stream.ids) if count < 0 else min(len(stream.ids), first + count)
            if last > first:
                found.append([key, stream.rows(first, last)])
        return found or None

    # -- the server ---------------------------------------------------------------------------------------------------

    def _time(self, _: Words) -> list[bytes]:
        now_us = self.time_us()
        return [b"%d" % (now_us // 1_000_000), b"%d" % (now_us % 1_000_000)]

    def _info(self, _: Words) -> bytes:
        return f"# Server\r\nredis_version:7.0.15\r\nrun_id:{self.run_id}\r\n".encode()

    def _scripting(self, a: Words) -> Any:
        if a[0].upper() == b"LOAD":
            sha = hashlib.sha1(a[1], usedforsecurity=False).hexdigest().encode()
            self.loaded[sha] = HOST.load(self.loading_as(a[1]))
            return sha
        self.loaded.clear()
        return OK

    def _ping(self, _: Words) -> Any:
        return Simple(b"PONG")


class OrderedSet(dict[bytes, None]):
    """A set's members, in the order of arrival."""

    def copy(self) -> OrderedSet:
        return OrderedSet(self)


def _limit(options: Words) -> slice:
    """The rows that LIMIT asks for, all without it; a count below zero: all from its offset on."""
    if b"LIMIT" not in options:
        return slice(0, None)
    offset, count = (int(options[options.index(b"LIMIT") + n]) for n in (1, 2))
    return slice(offset, None if count < 0 else offset + count)


def _listed(rows: Sequence[tuple[float, bytes]], with_scores: bool) -> list[bytes]:
    if with_scores:
        found: list[bytes] = []
        for score, member in rows:
            found += (member, shown(score))
        return found
    return [member for _, member in rows]


_ZADD_OPTIONS = frozenset({b"NX", b"XX", b"LT", b"GT", b"CH"})
_DENY_OOM = frozenset({b"SET", b"HSET", b"HINCRBY", b"SADD", b"ZADD", b"ZINCRBY", b"XADD", b"XGROUP"})
_COMMANDS: dict[bytes, Callable[[Store, Words], Any]] = {
    b"DEL": Store._del, b"UNLINK": Store._del, b"EXISTS": Store._exists, b"EXPIRE": Store._expire,
    b"PEXPIRE": Store._pexpire, b"PTTL": Store._pttl, b"GET": Store._get, b"MGET": Store._mget,
    b"GETDEL": Store._getdel, b"SET": Store._set, b"HSET": Store._hset, b"HGET": Store._hget, b"HMGET": Store._hmget,
    b"HGETALL": Store._hgetall, b"HDEL": Store._hdel, b"HEXISTS": Store._hexists, b"HLEN": Store._hlen,
    b"HINCRBY": Store._hincrby, b"SADD": Store._sadd, b"SREM": Store._srem, b"SMEMBERS": Store._smembers,
    b"SCARD": Store._scard, b"SISMEMBER": Store._sismember, b"ZADD": Store._zadd, b"ZREM": Store._zrem,
    b"ZINCRBY": Store._zincrby, b"ZCARD": Store._zcard, b"ZSCORE": Store._zscore, b"ZMSCORE": Store._zmscore,
    b"ZCOUNT": Store._zcount, b"ZRANGE": Store._zrange, b"ZREVRANGE": Store._zrevrange,
    b"ZRANGEBYSCORE": Store._zrangebyscore, b"ZREVRANGEBYSCORE": Store._zrevrangebyscore,
    b"ZREMRANGEBYSCORE": Store._zremrangebyscore, b"XADD": Store._xadd, b"XLEN": Store._xlen,
    b"XRANGE": Store._xrange, b"XREVRANGE": Store._xrevrange, b"XTRIM": Store._xtrim, b"XGROUP": Store._xgroup,
    b"XREAD": Store._xread, b"TIME": Store._time, b"INFO": Store._info, b"SCRIPT": Store._scripting,
    b"PING": Store._ping,
}  # fmt: skip
