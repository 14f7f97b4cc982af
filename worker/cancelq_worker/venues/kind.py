"""What a venue is to the rest of the worker before an account of it is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pydantic import SecretStr

from cancelq_worker.venues.port import Bucket, Venue, VenueTimer


@dataclass(frozen=True, slots=True)
class Place:
    """Where a venue is reached when an account does not say otherwise, and what its accounts need. None: the venue
    has no such environment. `batch_most`: the largest `batch_size` an account may set."""

    base_url: str
    ws_url: str | None
    batch_most: int
    demo_base_url: str | None = None
    demo_ws_url: str | None = None
    testnet_base_url: str | None = None
    testnet_ws_url: str | None = None
    needs_passphrase: bool = False


class AccountView(Protocol):
    """An account's settings, as an adapter reads them."""

    @property
    def base_url(self) -> str: ...
    @property
    def api_key(self) -> SecretStr: ...
    @property
    def api_secret(self) -> SecretStr: ...
    @property
    def passphrase(self) -> SecretStr | None: ...
    @property
    def demo(self) -> bool: ...
    @property
    def batch_size(self) -> int | None: ...
    @property
    def limits(self) -> Mapping[str, int]: ...


@dataclass(frozen=True, slots=True)
class VenueKind:
    """One venue: its place, how an account of it is opened, and its limits as documented: those it counts per account
    and those it counts per address. `flatten`: what empties an account with the fewest calls, one intent for each, as
    its `kinds`. `codes`: those of its answer tables, by which metrics name calls. `timer`: its own dead man's switch,
    where it has one."""

    place: Place
    open: Callable[[AccountView], Venue]
    buckets: tuple[Bucket, ...]
    address_buckets: tuple[Bucket, ...]
    flatten: tuple[str, ...] = ("order", "tpsl", "stop")
    codes: frozenset[str] = frozenset()
    timer: VenueTimer | None = None
