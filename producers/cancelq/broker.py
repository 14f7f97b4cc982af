"""From a URL to a client: of one server, of the master that sentinels name, or of a cluster.

    redis://[user:password@]host:port[/db]                       one server, or unix:// with a path
    redis+sentinel://[user:password@]host:port,host:port/name    the master of that name, by these sentinels
    redis+cluster://[user:password@]host:port,host:port          a cluster, begun at any of these nodes

`rediss…` speaks TLS to all of them. The query holds what redis-py's connections take, `ssl_ca_certs` for instance, and
for sentinels with a login of their own `sentinel_username` and `sentinel_password`. `/name/db` chooses a database.

A connection finds out where its server is whenever it connects: a client that lost its master asks the sentinels for
the new one, a lane that moved is found on its new node. Nothing is repeated by itself: redis-py's own clients for
sentinels and clusters repeat commands whose reply was lost, and an XADD that is repeated is queued twice.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, parse_url
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, ReadOnlyError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from cancelq.errors import UrlError
from cancelq.tls import flaw, welcomed

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
# How long a sentinel, or a node that is asked for the map of its cluster, may take to answer.
ASK_S = 1.0
# A slot that moves on is followed this often per command.
FOLLOWED_MOST = 3

# What a server says that does not hold the key, or may not write: nothing was executed, and another one can.
NOT_HERE = (MovedError, AskError, ClusterDownError, ReadOnlyError)

Kind = Literal["server", "sentinel", "cluster"]
Reply = Sequence[Any]


class Place(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Elsewhere(RedisConnectionError):
    """The server said that it is not, or no longer, the one for this: nothing was executed, connect again."""


@dataclass(frozen=True)
class Broker:
    """What a URL names. `seeds`: the sentinels, or nodes of the cluster. `plain`: a URL of one server with the same
    user, database and TLS. It holds the password and is not shown."""

    kind: Kind
    seeds: tuple[Place, ...]
    master: str
    plain: str = field(repr=False)
    sentinel_login: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, url: str) -> "Broker":
        """`UrlError` if it cannot be used; its words hold nothing of the URL that may be secret."""
        scheme, _, rest = url.partition("://")
        if scheme not in SCHEMES or not rest:
            raise UrlError(f"must be a URL that begins with {', '.join(f'{known}://' for known in SCHEMES)}")
        base, _, how = scheme.partition("+")
        if not how:
            return _checked(cls("server", (), "", _greeting(url)))
        hosts, query, path = _split(rest)
        login, _, places = hosts.rpartition("@")
        seeds = tuple(_place(text, 26379 if how == "sentinel" else 6379) for text in places.split(","))
        asked = dict(parse_qsl(query, keep_blank_values=True))
        login_there = {n[9:]: asked.pop(n) for n in ("sentinel_username", "sentinel_password") if n in asked}
        words = [unquote(word) for word in path.split("/") if word]
        if how == "sentinel":
            name, db = _master(words)
        elif words not in ([], ["0"]):
            raise UrlError("redis+cluster:// takes no database: a cluster has only 0")
        else:
            name, db = "", "0"
        plain = f"{base}://{login + '@' if login else ''}{seeds[0]}/{db}{'?' + urlencode(asked) if asked else ''}"
        return _checked(cls("sentinel" if how == "sentinel" else "cluster", seeds, name, _greeting(plain), login_there))

    @property
    def tls(self) -> bool:
        """Whether its servers speak TLS."""
        return self.plain.startswith("rediss")

    @cached_property
    def options(self) -> dict[str, Any]:
        """What connections to its servers are made with; `connection_class` among it for TLS."""
        return dict(parse_url(self.plain))  # type: ignore[no-untyped-call]

    def asking(self, place: Place) -> dict[str, Any]:
        """What a connection is made with that asks one of the seeds where the servers are."""
        kept = {name: value for name, value in self.options.items() if name != "db"}
        if self.kind == "sentinel":
            kept = {name: value for name, value in kept.items() if name not in ("username", "password")}
            kept.update(self.sentinel_login)
        kept.update(host=place.host, port=place.port, protocol=2, driver_info=None)
        kept.update(socket_timeout=ASK_S, socket_connect_timeout=ASK_S)
        return kept

    @property
    def question(self) -> tuple[str, ...]:
        """What the seeds are asked."""
        return ("SENTINEL", "MASTER", self.master) if self.kind == "sentinel" else ("CLUSTER", "SLOTS")

    def __str__(self) -> str:
        if self.kind == "server":
            return re.sub(r"//[^@/]*@", "//", self.plain.partition("?")[0])
        places = ", ".join(map(str, self.seeds))
        return f"the master {self.master!r} of the sentinels {places}" if self.master else f"the cluster of {places}"


def _split(rest: str) -> tuple[str, str, str]:
    """Login and places, query, path."""
    before, _, query = rest.partition("?")
    hosts, _, path = before.partition("/")
    return hosts, query, path


def _place(text: str, port: int) -> Place:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]@/\s]+))(?::([0-9]{1,5}))?", text)
    if match is None or not 0 < int(match[3] or port) < 65_536:
        raise UrlError("must name its servers as host:port,host:port")
    return Place(match[1] or match[2], int(match[3] or port))


def _master(words: Sequence[str]) -> tuple[str, str]:
    if not 1 <= len(words) <= 2 or not (words[1:] or ["0"])[0].isdigit():
        raise UrlError("must end in the name that the sentinels have for the master: redis+sentinel://host:port/name")
    return words[0], (words[1:] or ["0"])[0]


def _greeting(plain: str) -> str:
    """With a name that TLS connections tell the server, and so begin with a reply.

    Only that reply says whether the server takes the client's certificate, which must be known before an intent is on
    its way; and redis-py holds a fresh TLS 1.3 connection that nothing was read from for one with stray replies.
    """
    if not plain.startswith("rediss") or re.search("[?&]client_name=", plain):
        return plain
    return f"{plain}{'&' if '?' in plain else '?'}client_name=cancelq"


def _checked(broker: Broker) -> Broker:
    try:
        options = broker.options
    except ValueError:
        raise UrlError("has a port or an option that redis-py does not understand") from None
    if problem := flaw(options):
        raise UrlError(problem)
    return broker


# -- where the servers are ------------------------------------------------------------------------------------


class Elections:
    """Which master `seeds` sentinels name."""

    def __init__(self, seeds: int) -> None:
        self._seeds = seeds
        self._epoch = -1
        self._master = Place("", 0)

    def judge(self, replies: Sequence[Reply]) -> Place:
        """The master by the word of those that answered, each reply one's `SENTINEL MASTER`: where they differ, of the
        one that has heard of the latest failover. Some that are cut off, or have not heard of it yet, name an old one:
        only all of them together can take back a failover that was heard of before."""
        latest = max(map(_fields, replies), key=_epoch)
        if not self.behind(replies) or len(replies) >= self._seeds:
            self._epoch = _epoch(latest)
            self._master = Place(latest[b"ip"].decode(), int(latest[b"port"]))
        return self._master

    def behind(self, replies: Sequence[Reply]) -> bool:
        """Whether none of these has heard of a failover that was heard of before."""
        return max(_epoch(_fields(reply)) for reply in replies) < self._epoch


def _fields(reply: Reply) -> dict[Any, Any]:
    return dict(zip(reply[::2], reply[1::2], strict=False))


def _epoch(told: Mapping[Any, Any]) -> int:
    return int(told.get(b"config-epoch", 0))


class SlotMap:
    """Which node holds which slots, by a reply to `CLUSTER SLOTS` of the node `asked`."""

    def __init__(self, reply: Reply, asked: Place) -> None:
        self._spans: list[tuple[int, int, Place]] = []
        for first, last, (host, port, *_), *_ in reply:
            name = host.decode() if host else ""
            # A node that does not know its own name, or may not tell it: the host it was reached by.
            self._spans.append((first, last, Place(asked.host if name in ("", "?") else name, port)))

    def __bool__(self) -> bool:
        return bool(self._spans)

    @property
    def nodes(self) -> tuple[Place, ...]:
        return tuple(dict.fromkeys(place for _, _, place in self._spans))

    def holder(self, slot: int) -> Place:
        """`RedisConnectionError` for a slot that no node holds."""
        for first, last, place in self._spans:
            if first <= slot <= last:
                return place
        raise RedisConnectionError(f"no node of the cluster holds slot {slot}")


class Guide:
    """Tells connections where to go; for any number of threads. What it knows is asked for again after `doubt`."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._map: SlotMap | None = None
        self._seeds = list(broker.seeds)
        self._elections = Elections(len(broker.seeds))

    def doubt(self) -> None:
        """What was told last led nowhere."""
        self._map = None

    def places(self, slot: int | None) -> Sequence[Place]:
        """Where to try to connect, one after the other. `slot` None: of a cluster, any node. `RedisConnectionError` if
        nobody can tell."""
        if self.broker.kind == "sentinel":
            return (self._elections.judge([reply for _, reply in self._answers(most=len(self._seeds))]),)
        if self._map is None:
            self._map = next((SlotMap(reply, place) for place, reply in self._answers(most=1)), None)
        known = self._map
        if not known:
            raise unknown(self.broker, [])
        return known.nodes if slot is None else (known.holder(slot),)

    def _answers(self, most: int) -> list[tuple[Place, Reply]]:
        """Of as many seeds as answer, at most so many. One that does not is asked last the next time."""
        answers: list[tuple[Place, Reply]] = []
        troubles: list[str] = []
        for place in list(self._seeds):
            try:
                answers.append((place, self._ask(place)))
            except (RedisError, OSError) as trouble:
                troubles.append(f"{place}: {trouble}")
                self._seeds.remove(place)
                self._seeds.append(place)
            if len(answers) == most:
                break
        if not answers:
            raise unknown(self.broker, troubles)
        return answers

    def _ask(self, place: Place) -> Reply:
        with redis.Redis.from_pool(redis.ConnectionPool(**self.broker.asking(place))) as one:
            one.response_callbacks.clear()  # as the server gave it
            reply: Reply = one.execute_command(*self.broker.question)
            return reply


def unknown(broker: Broker, troubles: Sequence[str]) -> RedisConnectionError:
    """Nobody says where the servers are."""
    why = "; ".join(troubles) or "no node holds any slot"
    return RedisConnectionError(f"nobody can say where to find {broker} ({why})")


# -- connections and clients ----------------------------------------------------------------------------------


class _Led(AbstractConnection):
    """A connection that asks its guide where to go whenever it connects."""

    def __init__(self, *, guide: Guide, slot: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._guide = guide
        self._slot = slot

    def _connect(self) -> Any:
        trouble: OSError | None = None
        for place in self._guide.places(self._slot):
            self.host, self.port = place
            try:
                return super()._connect()  # type: ignore[safe-super, no-untyped-call]
            except OSError as failed:
                trouble = failed
                self._guide.doubt()
        raise trouble or OSError("no server to connect to")


class _Heeding(_Led):
    """… and leaves a server that says that it is not the one."""

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)
        except NOT_HERE as said:
            self._guide.doubt()
            self.disconnect()  # type: ignore[no-untyped-call]
            raise Elsewhere(f"{self.host}:{self.port} is not the server for this any more: {said}") from said


def led_pool(guide: Guide, slot: int | None = None, *, heeding: bool = False, **options: Any) -> redis.ConnectionPool:
    """A pool of connections that `guide` leads. `heeding`: what a wrong server says breaks the connection."""
    kept = {**options, **guide.broker.options}
    plain = kept.pop("connection_class", redis.Connection)
    # redis-py asks for both in a pool's options; where a connection goes, the guide says.
    return redis.ConnectionPool(
        connection_class=led_class(_Heeding if heeding else _Led, plain), guide=guide, slot=slot, **kept
    )


def node_options(pool: Any, place: Place) -> dict[str, Any]:
    """What makes a pool like this one for the node at `place`, TLS and all."""
    kept = {name: value for name, value in pool.connection_kwargs.items() if name not in ("guide", "slot")}
    plain = getattr(pool.connection_class, "plain", pool.connection_class)
    return {**kept, "host": place.host, "port": place.port, "connection_class": plain}


def led_class(lead: type, plain: type, over: Sequence[type] = ()) -> Any:
    """The class of connections like `plain`, led, with the classes `over` it; `plain` is kept in it, for connections to
    a node that is known."""
    return type("LedConnection", (*over, lead, plain), {"plain": plain})


def client(url: str, *, heeding: bool = False, **options: Any) -> redis.Redis:
    """A client of what the URL names; `options` as for `redis.Redis`. With `heeding`, a cluster is one client whose
    commands find their node, and a demoted master is left; without, the caller looks after both, as `Link` does.
    `UrlError`."""
    broker = Broker.read(url)
    options = {"retry": Retry(NoBackoff(), 0), "redis_connect_func": welcomed if broker.tls else None, **options}
    if broker.kind == "server":
        return redis.Redis.from_url(broker.plain, **options)
    if broker.kind == "cluster" and heeding:
        return ClusterRedis(broker, options)
    return redis.Redis.from_pool(led_pool(Guide(broker), heeding=heeding, **options))


class ClusterRedis(redis.Redis):
    """A cluster as one client: a command goes to the node that holds its key, a pipeline to the node of its keys, which
    must be of one lane, and what has no key to any node. A command whose slot has moved is sent to its new node; one
    whose reply was lost is not repeated."""

    def __init__(self, broker: Broker, options: Mapping[str, Any]) -> None:
        self._guide = Guide(broker)
        self._options = options
        self._homes: dict[int, redis.Redis] = {}
        self._nodes: dict[Place, redis.Redis] = {}
        # Not heeding: a `Link` through this pool follows by itself.
        super().__init__(connection_pool=led_pool(self._guide, **options))

    def home(self, key: str | bytes) -> redis.Redis:
        """The client of the node that holds this key, wherever that moves."""
        slot = slot_of(key)
        if slot not in self._homes:
            made = redis.Redis(connection_pool=led_pool(self._guide, slot, heeding=True, **self._options))
            made.response_callbacks = self.response_callbacks
            self._homes[slot] = made
        return self._homes[slot]

    def execute_command(self, *args: Any, **options: Any) -> Any:
        key = key_of(args)
        if key is None:
            if for_every_node(args):
                replies = [node.execute_command(*args, **options) for node in self.nodes()]  # type: ignore[no-untyped-call]
                return replies[0]
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        args = tuple(whole_or_not(args))
        for nth in range(1, FOLLOWED_MOST + 1):
            try:
                return self.home(key).execute_command(*args, **options)  # type: ignore[no-untyped-call]
            except Elsewhere:
                if nth == FOLLOWED_MOST:
                    raise
        raise AssertionError("unreachable")

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        return _OneHome(self, transaction)

    def scan_iter(self, *args: Any, **options: Any) -> Iterator[Any]:
        for node in self.nodes():
            yield from node.scan_iter(*args, **options)

    def nodes(self) -> list[redis.Redis]:
        """A client of each node that holds slots now."""
        places = self._guide.places(None)
        for place in places:
            if place not in self._nodes:
                kept = {**self._options, **self._guide.broker.options, **place._asdict()}
                self._nodes[place] = redis.Redis(connection_pool=redis.ConnectionPool(**kept))
        return [self._nodes[place] for place in places]

    def close(self) -> None:
        for made in (*self._homes.values(), *self._nodes.values(), self):
            made.connection_pool.disconnect()
        super().close()


class _OneHome(redis.client.Pipeline):
    """A pipeline of one lane's keys."""

    def __init__(self, cluster: ClusterRedis, transaction: bool) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction, None)
        self._cluster = cluster

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        if self.command_stack:
            key = one_home([args for args, _ in self.command_stack])
            self.connection_pool = self._cluster.home(key).connection_pool
        return super().execute(raise_on_error)


# -- keys -----------------------------------------------------------------------------------------------------

_KEYLESS = frozenset(
    ("ACL", "AUTH", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DBSIZE", "ECHO", "EXEC", "FLUSHALL", "HELLO", "INFO",
     "KEYS", "LASTSAVE", "LATENCY", "MODULE", "MULTI", "PING", "ROLE", "SCAN", "SCRIPT", "SLOWLOG", "TIME", "WAIT")
)  # fmt: skip
_SCRIPTED = frozenset(("EVAL", "EVALSHA", "EVALSHA_RO", "EVAL_RO"))
_TWO_WORDS = frozenset(("MEMORY", "OBJECT", "XGROUP", "XINFO"))


def key_of(args: Sequence[Any]) -> str | bytes | None:
    """The first key of a command of ours; None if it has none. A command of two words may be one argument or two."""
    name, *rest = str(args[0]).upper().split()
    if name in _KEYLESS:
        return None
    key: str | bytes
    if name in _SCRIPTED:
        key = args[3] if int(args[2]) else ""
        return key or None
    if name in ("XREAD", "XREADGROUP"):
        words = [word.decode() if isinstance(word, bytes) else str(word) for word in args]
        key = args[words.index("STREAMS") + 1]
        return key
    key = args[2 if name in _TWO_WORDS and not rest else 1]
    return key


def never_there(key: str) -> str:
    """A key of the same slot as `key`, which holds a hash tag, that nobody ever writes. A script that names it is
    refused whole while its slot is being moved; else it would stop half way at the first key that has gone."""
    return f"{key.partition('}')[0]}}}:never"


def whole_or_not(args: Sequence[Any]) -> Sequence[Any]:
    """The command with `never_there` among its keys, if it is a script's."""
    if str(args[0]).upper() not in _SCRIPTED or "}" not in str(args[3]):
        return args
    end = 3 + int(args[2])
    return (*args[:2], int(args[2]) + 1, *args[3:end], never_there(str(args[3])), *args[end:])


def for_every_node(args: Sequence[Any]) -> bool:
    """Whether a command without a key is about all nodes: each knows only the scripts that were loaded there."""
    return str(args[0]).upper().startswith("SCRIPT")


def slot_of(key: str | bytes) -> int:
    """The cluster slot of a key."""
    return int(key_slot(key.encode() if isinstance(key, str) else key))


def one_home(commands: Sequence[Sequence[Any]]) -> str | bytes:
    """A key of these commands, whose keys all have one slot; ValueError if they have not."""
    keys = [key for key in map(key_of, commands) if key is not None]
    if len({slot_of(key) for key in keys}) != 1:
        raise ValueError("a transaction of a cluster must be about one lane")
    return keys[0]
