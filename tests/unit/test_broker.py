"""URLs of servers, sentinels and clusters, and where commands belong."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from cancelq.broker import Broker, Elections, Place, SlotMap, key_of, one_home, slot_of, whole_or_not
from cancelq.errors import CancelqError, UrlError

LANE = "cancelq:{bitget:main}:"


@pytest.mark.parametrize(
    ("url", "kind", "seeds", "master", "options"),
    [
        ("redis://u:p@a:1/3", "server", (), "", {"host": "a", "port": 1, "db": 3, "username": "u", "password": "p"}),
        ("redis+sentinel://a:1,b/desk", "sentinel", (("a", 1), ("b", 26379)), "desk", {"db": 0}),
        ("redis+sentinel://u:p%40@a:1/desk/2", "sentinel", (("a", 1),), "desk", {"db": 2, "password": "p@"}),
        ("redis+cluster://u:p@[::1]:7,b", "cluster", (("::1", 7), ("b", 6379)), "", {"username": "u"}),
    ],
)
def test_what_a_url_names(
    url: str, kind: str, seeds: tuple[tuple[str, int], ...], master: str, options: dict[str, object]
) -> None:
    broker = Broker.read(url)
    assert (broker.kind, broker.seeds, broker.master) == (kind, tuple(Place(*seed) for seed in seeds), master)
    assert {name: broker.options.get(name) for name in options} == options


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://a", "begins with redis://"),
        ("redis+sentinel://a:1", "the name that the sentinels have"),
        ("redis+sentinel://a:1/desk/zero", "the name that the sentinels have"),
        ("redis+sentinel://u:canary@a:1,b:x/desk", "host:port,host:port"),
        ("redis+sentinel://u:canary@,b/desk", "host:port,host:port"),
        ("redis+cluster://u:canary@a:70000", "host:port,host:port"),
        ("redis+cluster://u:canary@a/3", "a cluster has only 0"),
        ("redis://u:canary@a:70000", "a port or an option"),
        ("redis+cluster://u:canary@a?socket_timeout=soon", "a port or an option"),
    ],
)
def test_what_cannot_be_used_is_told_without_a_secret(url: str, wanted: str) -> None:
    with pytest.raises(UrlError, match=wanted) as raised:
        Broker.read(url)
    assert isinstance(raised.value, CancelqError)
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:canary@a?password=canary",
        "redis+sentinel://u:canary@a/desk?password=canary&sentinel_password=canary",
        "redis+cluster://:canary@a?password=canary",
    ],
)
def test_nothing_that_is_shown_holds_the_password(url: str) -> None:
    broker = Broker.read(url)
    assert "canary" not in f"{broker} {broker!r}"


def test_sentinels_are_asked_with_their_own_login_and_servers_with_theirs() -> None:
    broker = Broker.read("rediss+sentinel://u:p@a:1/desk?ssl_min_version=771&sentinel_username=s&sentinel_password=t")
    asked = broker.asking(broker.seeds[0])
    assert (asked["username"], asked["password"]) == ("s", "t")
    assert (broker.options["username"], broker.options["password"]) == ("u", "p")
    assert asked["ssl_min_version"] == broker.options["ssl_min_version"]
    assert asked["connection_class"] is broker.options["connection_class"]
    assert "password" not in Broker.read("redis+sentinel://u:p@a:1/desk").asking(Place("a", 1))


def told(port: int, epoch: int) -> list[bytes]:
    """What a sentinel says of a master."""
    return [b"name", b"desk", b"ip", b"10.0.0.1", b"port", str(port).encode(), b"config-epoch", str(epoch).encode()]


def test_of_sentinels_that_differ_the_one_that_knows_the_latest_failover_counts() -> None:
    assert Elections(3).judge([told(1, 9), told(2, 10), told(3, 2)]) == Place("10.0.0.1", 2)


def test_a_failover_that_was_heard_of_is_taken_back_by_all_sentinels_only() -> None:
    elections = Elections(3)
    assert elections.judge([told(2, 10)]).port == 2
    assert elections.behind([told(1, 9)])
    assert elections.judge([told(1, 9)]).port == 2
    assert elections.judge([told(3, 11)]).port == 3
    assert elections.judge([told(1, 1), told(1, 1)]).port == 3
    assert elections.judge([told(1, 1), told(1, 1), told(1, 1)]).port == 1


def test_a_node_that_does_not_know_its_own_name_is_where_it_was_asked() -> None:
    reply = [[0, 99, [b"", 7, b"id"]], [100, 199, [b"n2", 8, b"id"], [b"n3", 9, b"id"]], [200, 16383, [None, 5, b""]]]
    found = SlotMap(reply, Place("asked", 7))
    assert [found.holder(slot) for slot in (0, 99, 100, 16383)] == [
        Place("asked", 7),
        Place("asked", 7),
        Place("n2", 8),
        Place("asked", 5),
    ]
    assert found.nodes == (Place("asked", 7), Place("n2", 8), Place("asked", 5))
    with pytest.raises(RedisConnectionError, match="no node of the cluster holds slot 7"):
        SlotMap([[100, 199, [b"n2", 8, b"id"]]], Place("asked", 7)).holder(7)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("XADD", LANE + "inbox", "*", "a", "b"), LANE + "inbox"),
        (("EVALSHA", "sha", 2, LANE + "clock", LANE + "x", "1"), LANE + "clock"),
        (("EVALSHA_RO", "sha", 1, LANE + "clock"), LANE + "clock"),
        (("XREAD", "COUNT", 5, "BLOCK", 10, "STREAMS", LANE + "inbox", "0"), LANE + "inbox"),
        ((b"XREADGROUP", "GROUP", "g", "c", b"STREAMS", LANE + "results", ">"), LANE + "results"),
        (("XINFO STREAM", LANE + "results"), LANE + "results"),
        (("XINFO", "STREAM", LANE + "results"), LANE + "results"),
        (("MEMORY", "USAGE", LANE + "results", "SAMPLES", 5), LANE + "results"),
        (("XGROUP CREATE", LANE + "results", "g", "$"), LANE + "results"),
        (("TIME",), None),
        (("SCRIPT LOAD", "return 1"), None),
        (("EVAL", "return 1", 0), None),
        (("WAIT", 1, 100), None),
    ],
)
def test_where_a_command_belongs(words: tuple[object, ...], key: str | None) -> None:
    words = tuple(word.decode() if n == 0 and isinstance(word, bytes) else word for n, word in enumerate(words))
    assert key_of(words) == key


def test_a_transaction_is_about_one_lane() -> None:
    assert one_home([("TIME",), ("GET", LANE + "a"), ("GET", LANE + "b")]) == LANE + "a"
    with pytest.raises(ValueError, match="one lane"):
        one_home([("GET", LANE + "a"), ("GET", "cancelq:{bybit:main}:a")])


def test_a_script_gets_a_key_more_of_the_same_slot_behind_its_own() -> None:
    told = whole_or_not(("EVALSHA", "sha", 1, LANE + "clock", "argument"))
    assert told[:2] == ("EVALSHA", "sha")
    assert told[2:4] == (2, LANE + "clock")
    assert told[5] == "argument"
    assert slot_of(str(told[4])) == slot_of(LANE + "clock")
    assert whole_or_not(("GET", LANE + "a", "b")) == ("GET", LANE + "a", "b")
    assert whole_or_not(("EVALSHA", "sha", 1, "cancelq:workers")) == ("EVALSHA", "sha", 1, "cancelq:workers")
