"""The in-memory store held against real servers: the same commands to both, the same replies from both.

Once command by command, with hypothesis looking for a difference; and once with everything that the project's own
scripts and clients say in whole simulated runs, script replies and all.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ResponseError
from redis.retry import Retry

from cancelq_worker.scripts import SCRIPTS
from tests.simulation.run import run
from tests.simulation.store import Store
from tests.simulation.world import Plan

KEYS = [b"k1", b"k2", b"k3"]
key = st.sampled_from(KEYS)
member = st.sampled_from([b"a", b"b", b"ab", b"\xff\x00", b"", b"10"])
text = st.one_of(member, st.binary(max_size=6))
#: Halves are written alike by all servers; other fractions are not, and the project has none.
score = st.one_of(st.integers(-5, 5), st.integers(10**15, 10**15 + 3), st.sampled_from([0.5, -2.5])).map(str)
bound = st.one_of(score, score.map(lambda s: f"({s}"), st.sampled_from(["-inf", "+inf"]))
place = st.integers(-4, 4).map(str)
entry_id = st.tuples(st.integers(0, 6), st.integers(0, 3)).map(lambda pair: f"{pair[0]}-{pair[1]}")
edge = st.one_of(entry_id, entry_id.map(lambda i: f"({i}"), st.integers(0, 6).map(str), st.sampled_from(["-", "+"]))
EXAMPLES = os.environ.get("CANCELQ_EXAMPLES", "")
UNORDERED = {b"HGETALL", b"SMEMBERS"}


class StoreMachine(RuleBasedStateMachine):
    """Any order of commands, of which every reply is compared, and at the end what every key holds."""

    server: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.server.flushall()
        self.store = Store(lambda: 1_767_225_600_000_000, "0" * 40)

    def both(self, *words: Any) -> None:
        asked = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        here, there = _reply(lambda: self.store.execute(asked)), _reply(lambda: _ask(self.server, asked))
        if asked[0] in UNORDERED:
            here, there = _sorted(asked[0], here), _sorted(asked[0], there)
        assert here == there, f"{asked}: {here!r} here, {there!r} at the server"

    @rule(key=key, value=text, options=st.sampled_from([(), ("NX",), ("PX", "100000"), ("EX", "100", "NX")]))
    def set(self, key: bytes, value: bytes, options: tuple[str, ...]) -> None:
        self.both(b"SET", key, value, *options)

    @rule(name=st.sampled_from([b"GET", b"GETDEL", b"EXISTS", b"DEL", b"UNLINK"]), key=key)
    def of_a_key(self, name: bytes, key: bytes) -> None:
        self.both(name, key)

    @rule(keys=st.lists(key, min_size=1, max_size=3))
    def mget(self, keys: list[bytes]) -> None:
        self.both(b"MGET", *keys)

    @rule(key=key, pairs=st.lists(st.tuples(member, text), min_size=1, max_size=4))
    def hset(self, key: bytes, pairs: list[tuple[bytes, bytes]]) -> None:
        self.both(b"HSET", key, *(word for pair in pairs for word in pair))

    @rule(name=st.sampled_from([b"HGET", b"HDEL", b"HEXISTS", b"HMGET"]), key=key, field=member)
    def of_a_field(self, name: bytes, key: bytes, field: bytes) -> None:
        self.both(name, key, field)

    @rule(name=st.sampled_from([b"HGETALL", b"HLEN", b"SMEMBERS", b"SCARD", b"ZCARD", b"XLEN"]), key=key)
    def of_all(self, name: bytes, key: bytes) -> None:
        self.both(name, key)

    @rule(key=key, field=member, by=st.integers(-3, 10**12))
    def hincrby(self, key: bytes, field: bytes, by: int) -> None:
        self.both(b"HINCRBY", key, field, by)

    @rule(name=st.sampled_from([b"SADD", b"SREM"]), key=key, members=st.lists(member, min_size=1, max_size=3))
    def of_members(self, name: bytes, key: bytes, members: list[bytes]) -> None:
        self.both(name, key, *members)

    @rule(key=key, field=member)
    def sismember(self, key: bytes, field: bytes) -> None:
        self.both(b"SISMEMBER", key, field)

    @rule(
        key=key,
        how=st.sampled_from([(), ("LT",), ("NX",), ("XX",), ("GT",)]),
        pairs=st.lists(st.tuples(score, member), min_size=1, max_size=4),
    )
    def zadd(self, key: bytes, how: tuple[str, ...], pairs: list[tuple[str, bytes]]) -> None:
        self.both(b"ZADD", key, *how, *(word for pair in pairs for word in pair))

    @rule(key=key, by=score, field=member)
    def zincrby(self, key: bytes, by: str, field: bytes) -> None:
        self.both(b"ZINCRBY", key, by, field)

    @rule(name=st.sampled_from([b"ZREM", b"ZMSCORE"]), key=key, members=st.lists(member, min_size=1, max_size=3))
    def of_scored(self, name: bytes, key: bytes, members: list[bytes]) -> None:
        self.both(name, key, *members)

    @rule(name=st.sampled_from([b"ZRANGE", b"ZREVRANGE"]), key=key, first=place, last=place, scores=st.booleans())
    def by_place(self, name: bytes, key: bytes, first: str, last: str, scores: bool) -> None:
        self.both(name, key, first, last, *(("WITHSCORES",) if scores else ()))

    @rule(
        name=st.sampled_from([b"ZRANGEBYSCORE", b"ZREVRANGEBYSCORE"]),
        key=key,
        first=bound,
        last=bound,
        limit=st.none() | st.tuples(st.integers(0, 3), st.integers(-1, 3)),
        scores=st.booleans(),
    )
    def by_score(
        self, name: bytes, key: bytes, first: str, last: str, limit: tuple[int, int] | None, scores: bool
    ) -> None:
        self.both(name, key, first, last, *(("WITHSCORES",) if scores else ()), *(("LIMIT", *limit) if limit else ()))

    @rule(
        key=key,
        members=st.lists(member, min_size=1, max_size=4),
        ends=st.tuples(*[st.sampled_from(["-", "+"]) | st.tuples(st.sampled_from("[("), member)] * 2),
        backwards=st.booleans(),
        limit=st.none() | st.tuples(st.integers(0, 3), st.integers(-1, 3)),
    )
    def by_text(
        self,
        key: bytes,
        members: list[bytes],
        ends: tuple[str | tuple[str, bytes], ...],
        backwards: bool,
        limit: tuple[int, int] | None,
    ) -> None:
        """Defined where all scores are the same: of a set of its own."""
        self.both(b"DEL", key)
        self.both(b"ZADD", key, *(word for one in members for word in ("0", one)))
        words = [end if isinstance(end, str) else end[0].encode() + end[1] for end in ends]
        options = (*(("REV",) if backwards else ()), *(("LIMIT", *limit) if limit else ()))
        self.both(b"ZRANGE", key, *words, "BYLEX", *options)

    @rule(name=st.sampled_from([b"ZCOUNT", b"ZREMRANGEBYSCORE"]), key=key, first=bound, last=bound)
    def between(self, name: bytes, key: bytes, first: str, last: str) -> None:
        self.both(name, key, first, last)

    @rule(key=key, field=member)
    def zscore(self, key: bytes, field: bytes) -> None:
        self.both(b"ZSCORE", key, field)

    @rule(
        key=key,
        how=st.sampled_from([(), ("NOMKSTREAM",), ("MAXLEN", "2"), ("NOMKSTREAM", "MAXLEN", "=", "3")]),
        at=entry_id,
        pairs=st.lists(st.tuples(member, text), min_size=1, max_size=2),
    )
    def xadd(self, key: bytes, how: tuple[str, ...], at: str, pairs: list[tuple[bytes, bytes]]) -> None:
        self.both(b"XADD", key, *how, at, *(word for pair in pairs for word in pair))

    @rule(name=st.sampled_from([b"XRANGE", b"XREVRANGE"]), key=key, first=edge, last=edge, count=st.none() | place)
    def xrange(self, name: bytes, key: bytes, first: str, last: str, count: str | None) -> None:
        if count is None or int(count) > 0:
            self.both(name, key, first, last, *(("COUNT", count) if count else ()))

    @rule(keys=st.lists(key, min_size=1, max_size=2, unique=True), after=entry_id, count=st.integers(1, 3))
    def xread(self, keys: list[bytes], after: str, count: int) -> None:
        self.both(b"XREAD", b"COUNT", count, b"STREAMS", *keys, *([after] * len(keys)))

    @rule(key=key, what=st.sampled_from([("MAXLEN", "2"), ("MAXLEN", "=", "0"), ("MINID", "3-1"), ("MINID", "2")]))
    def xtrim(self, key: bytes, what: tuple[str, ...]) -> None:
        self.both(b"XTRIM", key, *what)

    @rule(key=key, make=st.booleans())
    def group(self, key: bytes, make: bool) -> None:
        if make:
            self.both(b"XGROUP", b"CREATE", key, b"g", b"$", b"MKSTREAM")
        else:
            self.both(b"XGROUP", b"DESTROY", key, b"g")

    @rule(key=key, for_ms=st.sampled_from(["-1", "0", "100000"]))
    def pexpire(self, key: bytes, for_ms: str) -> None:
        self.both(b"PEXPIRE", key, for_ms)

    @rule(key=key, words=st.lists(member, min_size=1, max_size=3), whole=st.integers(-5, 10**13))
    def script(self, key: bytes, words: list[bytes], whole: int) -> None:
        """What a script sees of replies, and what a client sees of a script's."""
        self.both(b"SCRIPT", b"LOAD", _SCRIPT)
        sha = hashlib.sha1(_SCRIPT, usedforsecurity=False).hexdigest()
        self.both(b"EVALSHA", sha, 1, key, whole, *words)

    @invariant()
    def same_keys(self) -> None:
        here = sorted(name for name in KEYS if self.store.exists(name))
        assert here == sorted(self.server.keys())


_SCRIPT = b"""#!lua flags=allow-oom
local kind = redis.pcall('GET', KEYS[1])
local rows = redis.pcall('HMGET', KEYS[1], unpack(ARGV))
local scores = redis.pcall('ZRANGE', KEYS[1], 0, 1, 'WITHSCORES')
local n = tonumber(ARGV[1])
return {
  type(kind), type(rows) == 'table' and (rows.err and 'err' or #rows), type(scores) == 'table' and (scores.err and 'err'
  or #scores), n, n / 2, n * 2, string.format('%.0f', n), true, {ARGV[2], {n > 0}}, redis.sha1hex(ARGV[2]),
  redis.call('HINCRBY', 'other', 'n', n), redis.call('SET', 'k9', n * 2) and 'set', redis.call('DEL', 'other', 'k9'),
  cjson.decode('{"a": [1, "x", {"b": "y"}]}').a[3].b, nil, 'behind a hole'
}
"""


def test_every_command_is_answered_as_a_server_answers_it(redis_url: str) -> None:
    StoreMachine.server = _client(redis_url)
    try:
        run_state_machine_as_test(
            StoreMachine,
            settings=settings(
                # In the suite always the same examples; CANCELQ_EXAMPLES=1000 looks for others.
                max_examples=int(EXAMPLES or 25),
                derandomize=not EXAMPLES,
                stateful_step_count=40,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.explicit, Phase.reuse, Phase.generate],
            ),
        )
    finally:
        StoreMachine.server.close()


@pytest.mark.parametrize("venue", ["bitget", "bybit", "bingx"])
def test_a_server_answers_all_that_is_said_in_a_run_as_the_store_did(
    redis_url: str, venue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every reply of a run, most of them the project's scripts', on a server that is told the run's time and name."""
    stores: list[Store] = []

    def store(now_us: Callable[[], int], run_id: str) -> Store:
        stores.append(Store(now_us, run_id))
        return stores[-1]

    monkeypatch.setattr("tests.simulation.world.Store", store)
    said = _said_in_a_run(venue)
    with _client(redis_url) as server:
        run_id = stores[0].run_id
        shas = {SCRIPTS.sha[name].encode(): _timed(source, run_id) for name, source in SCRIPTS.source.items()}
        loaded = {sha: server.script_load(source) for sha, source in shas.items()}
        scripts, ends_us = 0, dict[bytes, int]()
        for wall_us, words, reply in said:
            for name in [name for name, end_us in ends_us.items() if end_us <= wall_us]:
                del ends_us[name]
                server.delete(name)
            seconds, us = divmod(wall_us, 1_000_000)
            server.hset("now", mapping={"s": seconds, "us": us, "ms": wall_us // 1000})
            if words[0] == b"EVALSHA":
                words = [words[0], loaded[words[1]], *words[2:]]
                scripts += 1
            elif b"PX" in words:  # the server's own time is another
                if reply is not None:
                    ends_us[words[1]] = wall_us + 1000 * int(words[-1])
                words = [*words[:-1], b"100000"]
            elif words[0] == b"XADD":
                words = [reply if word == b"*" else word for word in words]
            there = _reply(lambda asked=words: _ask(server, asked))
            here = f"{type(reply).__name__}" if isinstance(reply, ResponseError) else reply
            assert _plain(there) == _plain(here), f"{words[:12]}"
    assert scripts > 100


def _said_in_a_run(venue: str) -> list[tuple[int, list[bytes], Any]]:
    said: list[tuple[int, list[bytes], Any]] = []
    acts = ("hurt_venue", "hurt_way", "kill_worker")
    plan = Plan(7, (venue,), workers=2, trouble_s=2.0, per_s=1.0, faults_per_s=3.0, lossy=False, acts=acts)
    outcome = run(plan, told=lambda *row: said.append(row))
    assert not outcome.broken
    # Which scripts are loaded is another matter there.
    others = (b"SCRIPT", b"CLIENT")
    return [row for row in said if row[1][0] not in others and not isinstance(row[2], NoScriptError)]


def _timed(source: str, run_id: str) -> str:
    """A script that reads the time from a key, dates what it writes by it, and takes its server for this one."""
    source = source.replace("redis.call('TIME')", "redis.call('HMGET', 'now', 's', 'us')")
    source = source.replace("redis.call('INFO', 'server')", f"('run_id:{run_id}')")
    return source.replace(", '*'", ", redis.call('HGET', 'now', 'ms') .. '-*'")


def _plain(reply: Any) -> Any:
    if isinstance(reply, list):
        return [_plain(part) for part in reply]
    return bytes(reply) if isinstance(reply, bytes) else reply


def _client(url: str) -> redis.Redis:
    client = redis.Redis.from_url(url, protocol=2, retry=Retry(NoBackoff(), 0))
    client.response_callbacks.clear()
    return client


def _ask(server: redis.Redis, words: list[bytes]) -> Any:
    return server.execute_command(*words)  # type: ignore[no-untyped-call]


def _reply(ask: Any) -> Any:
    """A reply; a refusal by what kind it is."""
    try:
        reply = ask()
    except ResponseError as refused:
        return f"{type(refused).__name__}"
    return _plain(reply)


def _sorted(name: bytes, reply: Any) -> Any:
    if not isinstance(reply, list):
        return reply
    return sorted(reply) if name == b"SMEMBERS" else sorted(zip(reply[::2], reply[1::2], strict=True))


@pytest.fixture(autouse=True)
def _same_draws() -> Iterator[None]:
    before = random.getstate()
    yield
    random.setstate(before)
