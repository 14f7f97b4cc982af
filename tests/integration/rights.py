"""Who may do what on the server: every operation that matters, and the users of `ops/redis` that have a right to it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.integration.doors import MAIN

WORKER, OPERATOR, AUDITOR, JOBS, METRICS, DESK = "worker", "operator", "auditor", "jobs", "metrics", "rq-desk"
# A producer of the lane that the operations are about, and one of another lane.
PRODUCER, STRANGER = "producer-bitget-main", "producer-bybit-main"
EVERYONE = frozenset({WORKER, OPERATOR, AUDITOR, JOBS, METRICS, DESK, PRODUCER, STRANGER})
READERS = frozenset({WORKER, OPERATOR, AUDITOR, JOBS, METRICS})
NOBODY: frozenset[str] = frozenset()

# Of the script `return 1`, which the tests load.
SHA_OF_ONE = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"


@dataclass(frozen=True)
class Operation:
    words: tuple[str, ...]
    may: frozenset[str]

    def __str__(self) -> str:
        return " ".join(self.words)[:60]


def _op(line: str, *may: str) -> Operation:
    words = line.format(lane="cancelq:{bitget:main}", other="cancelq:{bybit:main}").split()
    return Operation(tuple(words), frozenset(may))


assert str(MAIN) == "bitget:main"

INBOX = [
    _op("XADD {lane}:inbox NOMKSTREAM * symbol BTCUSDT order_id 1", PRODUCER, OPERATOR, JOBS),
    _op("XADD {other}:inbox NOMKSTREAM * symbol BTCUSDT order_id 1", STRANGER, OPERATOR, JOBS),
    _op("EXISTS {lane}:inbox", *READERS, PRODUCER),
    _op("XRANGE {lane}:inbox - + COUNT 1", *READERS),
    _op("XREAD COUNT 1 STREAMS {lane}:inbox 0", WORKER, OPERATOR, AUDITOR, JOBS),
    _op("XLEN {lane}:inbox", *READERS),
    # By age, never past the cursor; the server cannot see with what.
    _op("XTRIM {lane}:inbox MAXLEN 0", WORKER),
    _op("XGROUP CREATE {lane}:inbox cancelq-make $ MKSTREAM", WORKER),
    _op("XGROUP DESTROY {lane}:inbox cancelq-make", WORKER),
    *(
        _op(line)
        for line in (
            "XDEL {lane}:inbox 1-1", "XSETID {lane}:inbox 9-9", "XREADGROUP GROUP g c STREAMS {lane}:inbox >",
            "DEL {lane}:inbox", "UNLINK {lane}:inbox", "SET {lane}:inbox x", "EXPIRE {lane}:inbox 1",
            "PEXPIREAT {lane}:inbox 1", "RENAME {lane}:inbox {lane}:away", "COPY {lane}:inbox {lane}:copy",
            "DUMP {lane}:inbox", "RESTORE {lane}:inbox 0 x REPLACE", "MOVE {lane}:inbox 1",
        )
    ),
]  # fmt: skip

RESULTS = [
    _op("XADD {lane}:results * id x", WORKER, OPERATOR, JOBS),
    _op("XRANGE {lane}:results - + COUNT 1", *READERS, PRODUCER),
    _op("XREVRANGE {lane}:results + - COUNT 1", *READERS, PRODUCER),
    _op("XREAD COUNT 1 STREAMS {lane}:results 0", WORKER, OPERATOR, AUDITOR, JOBS, PRODUCER),
    _op("XINFO STREAM {lane}:results", OPERATOR, AUDITOR, JOBS),
    _op("XTRIM {lane}:results MAXLEN 0", WORKER, JOBS),
    _op("XGROUP CREATE {lane}:results g $", OPERATOR, WORKER),
    _op("XGROUP DESTROY {lane}:results g", OPERATOR, WORKER),
    _op("XGROUP SETID {lane}:results g 0", OPERATOR),
    _op("XREADGROUP GROUP g c STREAMS {lane}:results >", OPERATOR, AUDITOR, PRODUCER),
    _op("XAUTOCLAIM {lane}:results g c 0 0", OPERATOR, AUDITOR, PRODUCER),
    _op("XACK {lane}:results g 1-1", OPERATOR, AUDITOR, PRODUCER),
    *(
        _op(line)
        for line in (
            "XDEL {lane}:results 1-1", "DEL {lane}:results", "UNLINK {lane}:results", "SET {lane}:results x",
            "EXPIRE {lane}:results 1", "RENAME {lane}:results {lane}:away", "XSETID {lane}:results 9-9",
        )
    ),
]  # fmt: skip

STATE = [
    *(
        _op(f"{command} {{lane}}:{name} {rest}", *may)
        for command, name, rest, may in (
            ("HGET", "intents", "x", (WORKER, OPERATOR, AUDITOR, JOBS)),
            ("HSET", "intents", "x y", (WORKER, JOBS)),
            ("HDEL", "intents", "x", (WORKER,)),
            ("HGET", "state", "x", (WORKER, OPERATOR, AUDITOR, JOBS)),
            ("HSET", "state", "x y", (WORKER, JOBS)),
            ("HDEL", "state", "x", (WORKER,)),
            ("DEL", "state", "", ()),
            ("HSET", "orders", "x y", (WORKER, JOBS)),
            ("ZADD", "queue:c:n:x", "1 x", (WORKER, JOBS)),
            ("ZREM", "queue:c:n:x", "x", (WORKER,)),
            ("SET", "clock", "x", (WORKER, JOBS)),
            ("SET", "cursor", "9-9", (WORKER,)),
            ("ZADD", "permits:cancel", "1 x", (WORKER,)),
            ("ZREM", "permits:cancel", "x", (WORKER,)),
            ("HSET", "rtt:cancel", "x y", (WORKER,)),
            ("HSET", "limits", "cancel 1000000", (WORKER,)),
            ("HSET", "ids:1", "x y", (WORKER,)),
            ("HGET", "ids:1", "x", (WORKER, OPERATOR, AUDITOR, JOBS)),
            ("DEL", "ids:1", "", ()),
            ("UNLINK", "memory:1", "", (WORKER,)),
            ("HSET", "hold", "*|paused -1", (WORKER, OPERATOR, JOBS)),
            ("HDEL", "hold", "*|paused", (WORKER, OPERATOR)),
            ("DEL", "hold", "", ()),
            ("SET", "probe", "x", (WORKER, OPERATOR)),
            ("SET", "probed", "x", (WORKER,)),
            ("SET", "rights", "x", (WORKER,)),
            ("SET", "archived", "x", (WORKER, JOBS)),
            ("DEL", "archived", "", (JOBS,)),
            ("SET", "archiver", "x", (JOBS,)),
            ("HGETALL", "sent", "", (WORKER, OPERATOR, AUDITOR, JOBS)),
        )
    ),
    _op("ZADD cancelq:workers 1 nobody", WORKER),
    _op("ZREM cancelq:workers nobody", WORKER),
    _op("HSET cancelq:{{egress:host}}:bitget-ip:note hold 1", WORKER),
]

GUARD = [
    _op("SET {lane}:guard x PX 10000", PRODUCER, OPERATOR),
    _op("DEL {lane}:guard {lane}:armed {lane}:fired", PRODUCER, OPERATOR),
    _op("GET {lane}:guard", *READERS, PRODUCER),
    _op("SET {other}:guard x PX 10000", STRANGER, OPERATOR),
    _op("SET {lane}:armed 1", PRODUCER, OPERATOR, WORKER),
    _op("SET {lane}:timer 1", WORKER),
]

RQ = [
    _op("HSET rq:job:x data y", WORKER, JOBS, OPERATOR, DESK),
    _op("RPUSH rq:queue:cancelq x", JOBS, OPERATOR, DESK),
    _op("RPUSH rq:queue:lane:bitget:main x", OPERATOR),
    _op("LREM rq:queue:lane:bitget:main 0 x", WORKER, OPERATOR),
    _op("SET rq:suspended 1", OPERATOR),
    _op("DEL rq:suspended", OPERATOR),
    _op("EXISTS rq:suspended", WORKER, JOBS, OPERATOR, METRICS),
    _op("SUBSCRIBE rq:pubsub:x", WORKER, JOBS),
    _op("PUBLISH rq:pubsub:x shutdown", OPERATOR),
    _op("SET cancelq:jobs:sweep:bitget:main 1", JOBS),
    _op("PSUBSCRIBE *"),
    _op("SUBSCRIBE news"),
    _op("PUBLISH news x"),
]

SCRIPTS = [
    Operation(("SCRIPT", "LOAD", "return 1"), frozenset({WORKER, OPERATOR, JOBS})),
    _op(f"EVALSHA {SHA_OF_ONE} 1 {{lane}}:clock", WORKER, JOBS),
    _op(f"EVALSHA {SHA_OF_ONE} 1 {{lane}}:inbox", WORKER, JOBS),
    _op(f"EVALSHA {SHA_OF_ONE} 1 elsewhere"),
    _op(f"EVALSHA_RO {SHA_OF_ONE} 1 {{lane}}:clock", WORKER, OPERATOR, JOBS, METRICS),
    *(
        Operation(words, NOBODY)
        for words in (
            ("EVAL", "return 1", "0"), ("EVAL_RO", "return 1", "0"), ("SCRIPT", "FLUSH"), ("SCRIPT", "KILL"),
            ("FUNCTION", "LOAD", "x"), ("FUNCTION", "FLUSH"), ("FCALL", "x", "0"),
        )
    ),
]  # fmt: skip

SERVER = [
    _op("PING", *EVERYONE),
    _op("TIME", *EVERYONE),
    _op("INFO memory", WORKER, OPERATOR, JOBS, METRICS, DESK),
    _op("SCAN 0", WORKER, OPERATOR, AUDITOR, JOBS, METRICS),
    _op("MEMORY USAGE {lane}:results", OPERATOR, METRICS),
    _op("CLIENT LIST", WORKER, JOBS),
    _op("CLIENT UNBLOCK 1", WORKER),
    _op("LATENCY LATEST", METRICS),
    *(
        _op(line)
        for line in (
            "KEYS *", "RANDOMKEY", "DBSIZE", "FLUSHALL", "FLUSHDB", "SWAPDB 0 1", "CONFIG GET *",
            "CONFIG SET maxmemory 1", "CONFIG REWRITE", "CONFIG RESETSTAT", "DEBUG SLEEP 0", "ACL LIST", "ACL WHOAMI",
            "ACL SETUSER worker on", "ACL LOG", "ACL LOAD", "CLIENT KILL ID 1", "CLIENT PAUSE 1", "CLIENT NO-EVICT on",
            "REPLICAOF NO ONE", "SLAVEOF NO ONE", "FAILOVER", "PSYNC x 1", "SAVE", "BGSAVE", "BGREWRITEAOF",
            "LASTSAVE", "SHUTDOWN NOSAVE", "MONITOR", "MODULE LIST", "MODULE LOAD x", "SLOWLOG GET", "SLOWLOG RESET",
            "LATENCY RESET", "MEMORY PURGE", "MIGRATE localhost 1 x 0 1", "SORT x", "CLUSTER RESET",
            "GET elsewhere", "SET elsewhere x", "DEL elsewhere", "XADD elsewhere * a b", "XADD cancelq:inbox * a b",
        )
    ),
]  # fmt: skip

OPERATIONS = [*INBOX, *RESULTS, *STATE, *GUARD, *RQ, *SCRIPTS, *SERVER]
