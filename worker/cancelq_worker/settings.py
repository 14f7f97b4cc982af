"""What a desk configures: a TOML file, overridden by a secrets directory, overridden by the environment.

Everything is read once, by `Settings.load`, from what the caller hands in; building `Settings(...)` directly
reads nothing from outside. A mistake is never skipped: each one becomes a line that names the place it was
written at and what to write instead. No line, no `repr` and no error holds a secret.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from cancelq.broker import Broker
from cancelq.contract import Lane
from cancelq.errors import LaneError
from cancelq_worker.settings_files import passwords_in
from cancelq_worker.settings_jobs import A_SPAN, Jobs
from cancelq_worker.settings_jobs import fields_at as job_fields_at
from cancelq_worker.settings_names import known_venue, meant, usable_account
from cancelq_worker.settings_origin import PREFIX, Origin, SettingsError
from cancelq_worker.venues.kind import Place
from cancelq_worker.venues.registry import KINDS

__all__ = ["Account", "Settings", "SettingsError", "listen_place", "without_credentials"]

#: Characters; no venue gives out shorter secrets.
SHORTEST_SECRET = 6


def _no_switch(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a whole number in plain digits")
    return value


Whole = Annotated[int, BeforeValidator(_no_switch)]


def _written_lane(text: str) -> str:
    try:
        return str(Lane.parse(text))
    except LaneError as error:
        raise ValueError(str(error)) from error


def _header_safe(secret: SecretStr) -> SecretStr:
    """Keys travel in HTTP headers: a pasted newline or an invisible character would fail every call."""
    text = secret.get_secret_value().strip()
    if not all("!" <= character <= "~" for character in text):
        raise ValueError("holds a space or a character outside ASCII; paste it again")
    return SecretStr(text)


def _web_url(url: str) -> str:
    return _checked_url(url, ("https", "http")).rstrip("/") if url else url


def _socket_url(url: str | None) -> str | None:
    return _checked_url(url, ("wss", "ws")) if url else None


def _redis_url(url: str | None) -> str | None:
    if url is not None:
        Broker.read(url)
    return url


def _checked_url(url: str, schemes: tuple[str, ...]) -> str:
    parts = _split(url)
    if parts is None or parts.scheme not in schemes or not (parts.netloc or parts.path):
        raise ValueError(f"must be a URL with a host, beginning with {' or '.join(f'{name}://' for name in schemes)}")
    return url


def listen_place(place: str) -> tuple[str, int]:
    """Host and port of HOST:PORT, an IPv6 address in brackets; port 0 stands for a free one. Raises ValueError."""
    host, _, port = place.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or (":" in bare and bare == host) or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65_535:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:9464; port 0 takes any free one")
    return bare, int(port)


def _http_place(place: str) -> str:
    if place:
        listen_place(place)
    return place


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None


Secret = Annotated[SecretStr, AfterValidator(_header_safe)]


class Account(BaseModel):
    """One account at one venue, a lane. An empty `api_key` or `api_secret` means that none was given."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    base_url: Annotated[str, AfterValidator(_web_url)] = ""
    # The private order stream; None: off.
    ws_url: Annotated[str | None, AfterValidator(_socket_url)] = None
    api_key: Secret = SecretStr("")
    api_secret: Secret = SecretStr("")
    passphrase: Secret | None = None
    demo: bool = False
    testnet: bool = False
    # Whether the venue's own timer is set too while a guard is kept, so that a dead fleet is covered.
    venue_timer: bool = False
    # Whether a key that may withdraw is used all the same; else workers refuse it, where the venue tells.
    allow_withdraw_key: bool = False
    # The most orders a batch call may name; None: what the venue documents, or 10 where it does not.
    batch_size: Annotated[Whole, Field(ge=1, le=50)] | None = None
    # Units per window of a bucket, by the bucket's name, where the venue granted more or less than usual.
    limits: dict[str, Annotated[Whole, Field(ge=1, le=1_000_000)]] = Field(default_factory=dict)


Accounts = dict[
    Annotated[str, AfterValidator(known_venue)],
    dict[Annotated[str, AfterValidator(usable_account)], Account],
]


class Settings(BaseSettings):
    """The settings of one process, complete and checked. Immutable; `again` reads the same places anew."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, env_prefix=PREFIX, env_nested_delimiter="__"
    )

    # May hold a password, therefore not in `repr`; show `redis_place` instead.
    redis_url: Annotated[str, AfterValidator(_redis_url)] = Field("redis://127.0.0.1:6379/0", repr=False)
    rq_redis_url: Annotated[str | None, AfterValidator(_redis_url)] = Field(None, repr=False)
    secrets_dir: Path | None = None
    egress: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = Field(
        default_factory=lambda: re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64] or "host"
    )
    results_keep_days: Whole = Field(30, ge=1, le=3650)
    # Where `cancelq archive` keeps results; workers that have it trim no result which is not archived and verified.
    archive_dir: Path | None = None
    urgent_reserve: Whole = Field(1, ge=0, le=1000)
    lease_ms: Whole = Field(5000, ge=3000, le=60_000)
    dedup_hours: Whole = Field(24, ge=1, le=168)
    # Replicas that must have what a call takes before it is sent; a permit that no replica has may be given out twice.
    durable_replicas: Whole = Field(0, ge=0, le=10)
    max_attempts: Whole = Field(5, ge=1, le=100)
    lookup_budget_ms: Whole = Field(10_000, ge=1000, le=3_600_000)
    # Where a worker shows /livez, /readyz and /metrics; empty: nowhere.
    http: Annotated[str, AfterValidator(_http_place)] = ""
    accounts: Annotated[Accounts, BeforeValidator(lambda given: given or {})] = Field(default_factory=dict)
    # The lanes that jobs on RQ's queue may submit to; None: every configured lane.
    rq_lanes: tuple[Annotated[str, AfterValidator(_written_lane)], ...] | None = None
    jobs: Jobs = Field(default_factory=Jobs)

    _again: Callable[[], Self] | None = PrivateAttr(None)

    @classmethod
    def load(cls, config: Path | None, env: Mapping[str, str], *, need_keys: bool = True) -> Self:
        """Settings from `config` (else the file `CANCELQ_CONFIG` names, else none), secret files and `env`.

        With `need_keys` at least one account is required, and each must have its credentials; commands that
        only read or write streams do without. Raises `SettingsError` with every problem found at once.
        """
        origin = Origin(config, env)
        strays = list(origin.strays(cls.model_fields, tables=["accounts", "jobs"]))
        try:
            settings = cls(**origin.values(cls))
        except ValidationError as error:
            raise SettingsError([*strays, *_in_words(error, origin)]) from None
        problems = [*strays, *(_missing_keys(settings) if need_keys else ())]
        if problems:
            raise SettingsError(problems)
        settings._again = lambda: cls.load(config, env, need_keys=need_keys)
        return settings

    def only(self, lanes: Iterable[Lane]) -> Self:
        """These settings with the accounts of `lanes` alone, which must be configured and have their keys.

        Raises `SettingsError` where one is not or has not.
        """
        wanted = tuple(lanes)
        if unknown := [str(lane) for lane in wanted if lane not in self.lanes]:
            raise SettingsError(
                f"{lane} is not configured; add [accounts.{lane.replace(':', '.')}]" for lane in unknown
            )
        accounts: dict[str, dict[str, Account]] = {}
        for lane in wanted:
            accounts.setdefault(lane.venue, {})[lane.account] = self.account(lane)
        narrowed = self.model_copy(update={"accounts": accounts})
        if problems := list(_missing_keys(narrowed)):
            raise SettingsError(problems)
        narrowed._again = lambda: self.again().only(wanted)
        return narrowed

    def with_http(self, place: str) -> Self:
        """These settings, shown at `place`; also when they are read again."""
        shown = self.model_copy(update={"http": place})
        shown._again = lambda: self.again().with_http(place)
        return shown

    def again(self) -> Self:
        """The same file, secrets directory and environment read once more (what HUP asks for)."""
        return self._again() if self._again else self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in: the environment is the caller's to read, once."""
        return (init_settings,)

    @model_validator(mode="after")
    def _fill_places(self) -> Self:
        for venue, by_name in self.accounts.items():
            for name, account in by_name.items():
                by_name[name] = _placed(venue, name, account)
        _refuse_shared_keys(self)
        _refuse_two_sizes(self)
        return self

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Every configured lane, in the order of the venues' and accounts' first mention."""
        return tuple(Lane(venue, name) for venue, names in self.accounts.items() for name in names)

    @property
    def lanes_open_to_rq(self) -> tuple[Lane, ...]:
        """The lanes that jobs on RQ's queue may submit to."""
        return self.lanes if self.rq_lanes is None else tuple(Lane.parse(lane) for lane in self.rq_lanes)

    def account(self, lane: Lane) -> Account:
        """The account of a configured lane. Raises `KeyError` for any other."""
        return self.accounts[lane.venue][lane.account]

    def secrets(self) -> Iterator[str]:
        """Every value that nobody may see, as it is and as a URL spells it; short ones, which innocent words may hold,
        are left out."""
        held = [password for url in (self.redis_url, self.rq_redis_url or "") for password in passwords_in(url)]
        for lane in self.lanes:
            account = self.account(lane)
            given = (account.api_key, account.api_secret, account.passphrase or SecretStr(""))
            held += [secret.get_secret_value() for secret in given]
        yield from (secret for secret in held if len(secret) >= SHORTEST_SECRET)

    @property
    def redis_place(self) -> str:
        """`redis_url` without user and password: what may be shown and logged."""
        return without_credentials(self.redis_url)


def without_credentials(url: str) -> str:
    """`url` without its user and password, and without its query, which may hold a password too."""
    return re.sub(r"//[^@/]*@", "//", url.split("?", 1)[0])


def _placed(venue: str, name: str, account: Account) -> Account:
    """`account` with the venue's own addresses where it names none; a stream address of its own is kept."""
    place, setting = KINDS[venue].place, f"accounts.{venue}.{name}"
    if account.demo and account.testnet:
        raise ValueError(f"{setting}.testnet: an account is of the demo or of the testnet, not of both; remove one")
    default_base, default_ws = _addresses(place, account)
    base_url = account.base_url or default_base
    if base_url is None:
        which = "demo" if account.demo else "testnet"
        raise ValueError(f"{setting}.{which}: {venue} has no spot {which}; let base_url name a `cancelq simulate`")
    if account.venue_timer and KINDS[venue].timer is None:
        raise ValueError(f"{setting}.venue_timer: {venue} has no timer of its own that cancels orders; remove it")
    if account.batch_size is not None and account.batch_size > place.batch_most:
        raise ValueError(f"{setting}.batch_size: {venue} takes at most {place.batch_most} orders in a call")
    if _in_the_clear(account.base_url, place):
        raise ValueError(f"{setting}.base_url would send keys unencrypted; write https://")
    if _in_the_clear(account.ws_url or "", place):
        raise ValueError(f"{setting}.ws_url would send a login unencrypted; write wss://")
    keeps_ws = "ws_url" in account.model_fields_set or account.base_url
    limits = _named_limits(venue, setting, account.limits)
    ws_url = account.ws_url if keeps_ws else default_ws
    return account.model_copy(update={"base_url": base_url, "ws_url": ws_url, "limits": limits})


def _named_limits(venue: str, setting: str, given: Mapping[str, int]) -> dict[str, int]:
    """Limits by their bucket's name. The environment knows neither `-` nor small letters, so these do not matter."""
    buckets = (*KINDS[venue].buckets, *KINDS[venue].address_buckets)
    known = {_plain(bucket.name): bucket.name for bucket in buckets}
    limits: dict[str, int] = {}
    for name, units in given.items():
        if _plain(name) not in known:
            hint = meant(name, known.values(), f"limits of {venue} are")
            raise ValueError(f'{setting}.limits: unknown limit "{name}"{hint}')
        limits[known[_plain(name)]] = units
    return limits


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def _addresses(place: Place, account: Account) -> tuple[str | None, str | None]:
    if account.demo:
        return place.demo_base_url, place.demo_ws_url
    if account.testnet:
        return place.testnet_base_url, place.testnet_ws_url
    return place.base_url, place.ws_url


def _in_the_clear(url: str, place: Place) -> bool:
    host = urlsplit(url).hostname or ""
    domain = ".".join((urlsplit(place.base_url).hostname or "").split(".")[-2:])
    return url.startswith(("http://", "ws://")) and (host == domain or host.endswith("." + domain))


def _refuse_shared_keys(settings: Settings) -> None:
    """A limit belongs to a key's user: two lanes with one key at one venue would each use all of it."""
    owners: dict[tuple[str, str], Lane] = {}
    for lane in settings.lanes:
        key = settings.account(lane).api_key.get_secret_value()
        if key and (first := owners.setdefault((lane.venue, key), lane)) != lane:
            raise ValueError(f"{first} and {lane} have the same api_key; each lane needs a key of its own")


def _refuse_two_sizes(settings: Settings) -> None:
    """What a venue counts per address is one limit for all accounts of that host."""
    sizes: dict[tuple[str, str, str], tuple[Lane, int]] = {}
    for lane in settings.lanes:
        account = settings.account(lane)
        for bucket in KINDS[lane.venue].address_buckets:
            size = account.limits.get(bucket.name, bucket.units)
            first, other = sizes.setdefault((lane.venue, account.base_url, bucket.name), (lane, size))
            if other != size:
                raise ValueError(
                    f'{first} and {lane} give "{bucket.name}" different sizes ({other} and {size}); '
                    f"the venue counts it per address, so all its accounts must agree"
                )


def _missing_keys(settings: Settings) -> Iterator[str]:
    if not settings.lanes:
        example = _variable(Lane.parse("bitget:main"), "api_key")
        yield f"no account is configured; add [accounts.bitget.main] to the settings file, or set {example}"
    for lane in settings.lanes:
        account = settings.account(lane)
        wanted = {"api_key": account.api_key, "api_secret": account.api_secret}
        if KINDS[lane.venue].place.needs_passphrase:
            wanted["passphrase"] = account.passphrase or SecretStr("")
        for name, secret in wanted.items():
            if not secret.get_secret_value():
                yield (
                    f"{lane} has no {name}; set {_variable(lane, name)}, "
                    f"or put it into a file {_variable(lane, name).lower()} in secrets_dir"
                )


def _variable(lane: Lane, field: str) -> str:
    return f"{PREFIX}ACCOUNTS__{lane.venue}__{lane.account}__{field}".upper()


def _in_words(error: ValidationError, origin: Origin) -> Iterator[str]:
    for detail in error.errors(include_url=False, include_context=True):
        path = tuple(str(part) for part in detail["loc"] if part != "[key]")
        place, rest = origin.where(path)
        name = "" if detail["type"] == "extra_forbidden" else ".".join(rest)
        yield " ".join(part for part in (place, name, _reason(detail, path)) if part)


def _reason(detail: ErrorDetails, path: tuple[str, ...]) -> str:
    """What is wrong with one value, in words; the value itself only where it is a number."""
    context, given = detail.get("ctx", {}), str(detail["input"])
    shown = f", it is {given}" if given.lstrip("-").isdigit() else ""
    match detail["type"]:
        case "extra_forbidden":
            known = meant(path[-1], _fields_at(path[:-1]), "settings here are")
            return f'unknown setting "{path[-1]}"{known}{_divided(detail, path)}'
        case "greater_than_equal":
            return f"must be at least {context['ge']}{shown}"
        case "less_than_equal":
            return f"must be at most {context['le']}{shown}"
        case "int_parsing" | "int_type" | "int_from_float" | "int_parsing_size" | "finite_number":
            return "must be a whole number in plain digits"
        case "bool_parsing" | "bool_type":
            return "must be true or false"
        case "string_type" | "path_type" | "secret_type":
            return 'must be text in "quotes"'
        case "string_pattern_mismatch":
            return "may hold 1 to 64 letters, digits, dots, - and _ only"
        case "dict_type" | "model_type" | "model_attributes_type":
            return _not_a_table(path)
        case "tuple_type":
            return 'must be a list of lanes, such as ["bitget:main", "bybit:desk"]'
        case "missing":
            return f"is missing; it {A_SPAN}"
        case "value_error":
            return str(context["error"])
        case _:
            return f"cannot be used: {detail['msg']}"


def _divided(detail: ErrorDetails, path: tuple[str, ...]) -> str:
    """What an account's name that holds `__` or a dot was taken for: a name, and a table in its account."""
    if path[0] == "accounts" and len(path) == 4 and isinstance(detail["input"], Mapping):
        return '; an account\'s name holds no "__" and no dot'
    return ""


def _not_a_table(path: tuple[str, ...]) -> str:
    if len(path) == 3 and path[2] in Account.model_fields:
        return f"stands where an account's name belongs; write accounts.{path[1]}.NAME.{path[2]}"
    if path[3:] == ("limits",):
        return "must be a table, such as { bitget-ip = 6000 }"
    return f"must be a table, such as [{'jobs.sweep' if path[0] == 'jobs' else 'accounts'}.bitget.main]"


def _fields_at(path: tuple[str, ...]) -> Iterable[str]:
    if path and path[0] == "jobs":
        return list(job_fields_at(path[1:]))
    return Account.model_fields if len(path) == 3 and path[0] == "accounts" else Settings.model_fields
