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
    # The user of the lanes' server, once the settings were read.
    redis_user: str = ""

    def settings(self, *, need_keys: bool = False) -> Settings:
        """The settings; `SettingsError` if they cannot be used. Most commands need no account and no key."""
        from cancelq.broker import Broker
        from cancelq_worker.settings import Settings

        settings = Settings.load(self.config, self.env, need_keys=need_keys)
        self.redis_user = Broker.read(settings.redis_url).options.get("username", "default")
        return settings

    def redis(self, settings: Settings) -> redis.Redis:
        """A client of the lanes' server that answers bytes and never repeats a command by itself."""
        from cancelq.broker import client
        from cancelq.link import options

        return client(settings.redis_url, heeding=True, **options(5.0))


def invocation_of(ctx: typer.Context) -> Invocation:
    """The invocation a command runs in."""
    return ctx.ensure_object(Invocation)
