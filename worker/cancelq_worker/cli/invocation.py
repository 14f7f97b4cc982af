"""What one run of the command was given: its environment, its global options, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import redis

    from cancelq_worker.settings import Settings


@dataclass(slots=True)
class Invocation:
    """The environment as it was when the command began, and the options before its name."""

    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    config: Path | None = None
    traceback: bool = False

    def settings(self, *, need_keys: bool = False) -> Settings:
        """The settings; `SettingsError` if they cannot be used. Most commands need no account and no key."""
        from cancelq_worker.settings import Settings

        return Settings.load(self.config, self.env, need_keys=need_keys)

    def redis(self, settings: Settings) -> redis.Redis:
        """A client of the lanes' server that answers bytes and never repeats a command by itself."""
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        return Redis.from_url(
            plain_url(settings),
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            socket_timeout=5.0,
            socket_connect_timeout=5.0,
        )


def plain_url(settings: Settings) -> str:
    """`redis_url`, if it names one server; `SettingsError` if it needs a client that is not built yet."""
    from cancelq_worker.settings import SettingsError

    scheme = settings.redis_url.partition("://")[0]
    if "+" in scheme:
        raise SettingsError([f"redis_url begins with {scheme}://, which this version does not serve yet"])
    return settings.redis_url


def invocation_of(ctx: typer.Context) -> Invocation:
    """The invocation a command runs in."""
    return ctx.ensure_object(Invocation)
