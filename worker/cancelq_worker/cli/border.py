"""The border where errors become words: what a command shows for each, what to do about it, how it exits.

A new error of the libraries that the commands use belongs into this table, and nowhere else.
"""

from __future__ import annotations

import redis.exceptions

from cancelq.contract import Lane
from cancelq.errors import (
    BatchIncomplete,
    BrokerDown,
    BrokerRefused,
    Conflicting,
    EventError,
    GroupMissing,
    IntentError,
    LaneError,
    NoResults,
    NotAccepted,
    OutcomeTimeout,
    Uncertain,
    UrlError,
)
from cancelq.tls import advice
from cancelq_worker.exits import CommandFailed, EmbeddedServerError, Exit
from cancelq_worker.redaction import redacted_text
from cancelq_worker.settings import SettingsError

REACH = "check that the server runs and that redis_url (CANCELQ_REDIS_URL) names it, with rediss:// if it speaks TLS"
LOGIN = "put the right user and password into redis_url (CANCELQ_REDIS_URL)"
RIGHTS = (
    "run it as a user whose role may do this (docs/SECURITY.md), named in redis_url (CANCELQ_REDIS_URL); "
    "ACL LOG on the server tells the command and the key"
)
CERTIFICATES = "redis_url (CANCELQ_REDIS_URL) names the certificates; docs/SECURITY.md tells how"
OWN_SERVER = "or run a server of your own and name it in redis_url (CANCELQ_REDIS_URL)"
SETTINGS = "correct it there; the file is named by --config or CANCELQ_CONFIG, variables begin with CANCELQ_"
_REFUSED_RIGHTS = (
    redis.exceptions.AuthenticationError,
    redis.exceptions.AuthorizationError,
    redis.exceptions.NoPermissionError,
)
# Replies of the server that are about who asks, not about what it can do just now.
_ABOUT_RIGHTS = frozenset({"NOAUTH", "WRONGPASS", "NOPERM"})


def failure_of(error: Exception, user: str = "") -> CommandFailed:
    """What to tell about `error`, met as that `user` of the server. One that is not in the table is told as a fault of
    this program."""
    match error:
        case CommandFailed():
            return error
        case SettingsError():
            return CommandFailed("\n".join(error.problems), SETTINGS, Exit.CONFIGURATION)
        case LaneError():
            return CommandFailed(str(error), "lanes are written like bitget:main", Exit.USAGE)
        case UrlError():
            return CommandFailed(f"redis_url {error}", SETTINGS, Exit.CONFIGURATION)
        case IntentError():
            return CommandFailed(error.detail, "cancelq submit --help explains the fields", Exit.BAD_INPUT)
        case EmbeddedServerError():
            return CommandFailed(str(error), OWN_SERVER, Exit.UNREACHABLE)
        case redis.exceptions.RedisError():
            return _of_redis(error, user)
        case _:
            return _of_client(error, user) or _unexpected(error)


def _of_client(error: Exception, user: str) -> CommandFailed | None:
    match error:
        case NotAccepted():
            return CommandFailed(str(error), "cancelq status shows the lanes there are", Exit.UNHEALTHY)
        case BrokerDown() if isinstance(error.__cause__, redis.exceptions.AuthenticationError):
            return _refused(str(error.__cause__), user, LOGIN)
        case BrokerDown():
            remedy = CERTIFICATES if advice(str(error)) else REACH
            return CommandFailed(redacted_text(str(error)), remedy, Exit.UNREACHABLE)
        case BrokerRefused() if error.code in _ABOUT_RIGHTS:
            return _refused(error.said, user, RIGHTS if error.code == "NOPERM" else LOGIN)
        case BrokerRefused():
            code = Exit.UNHEALTHY if error.code in ("OOM", "MISCONF") else Exit.UNREACHABLE
            return CommandFailed(str(error), "try again once that is mended", code)
        case Uncertain():
            return CommandFailed(str(error), f"send it again with --id {error.id}", Exit.UNREACHABLE)
        case BatchIncomplete():
            remedy = "give every line an id of its own; then the same file can be fed again safely"
            return CommandFailed(str(error), remedy, Exit.UNREACHABLE)
        case Conflicting():
            remedy = f"what became of the first: cancelq results --id {error.ids[0]}"
            return CommandFailed(str(error), remedy, Exit.UNHEALTHY)
        case OutcomeTimeout():
            remedy = f"it is not given up: cancelq results --id {error.ids[0]}"
            return CommandFailed(str(error), remedy, Exit.UNHEALTHY)
        case NoResults():
            return CommandFailed(str(error), "cancelq status shows the lanes there are", Exit.UNHEALTHY)
        case GroupMissing():
            return CommandFailed(str(error), f"as an operator, once: {error.command}", Exit.CONFIGURATION)
        case EventError():
            remedy = "use a cancelq at least as new as the workers"
            return CommandFailed(str(error), remedy, Exit.UNHEALTHY)
        case _:
            return None


def _of_redis(error: redis.exceptions.RedisError, user: str) -> CommandFailed:
    said = redacted_text(str(error)) or type(error).__name__
    # These first: to redis-py some of them are connection errors.
    if isinstance(error, _REFUSED_RIGHTS):
        return _refused(said, user, LOGIN if isinstance(error, redis.exceptions.AuthenticationError) else RIGHTS)
    if isinstance(error, redis.exceptions.ConnectionError | redis.exceptions.TimeoutError):
        told = f"Redis cannot be reached: {said}"
        if about_tls := advice(said):
            return CommandFailed(f"{told}; {about_tls}", CERTIFICATES, Exit.UNREACHABLE)
        return CommandFailed(told, REACH, Exit.UNREACHABLE)
    return CommandFailed(f"Redis refused: {said}", "try again once that is mended", Exit.UNREACHABLE)


def _refused(said: str, user: str, remedy: str) -> CommandFailed:
    """The server does not let this user in, or not this far."""
    return CommandFailed(f"Redis refused{f' user {user}' if user else ''}: {said}", remedy, Exit.CONFIGURATION)


def unknown_lane(lane: Lane) -> CommandFailed:
    """The lane has no inbox on this server."""
    return CommandFailed(
        f"{lane} has no inbox on this server, so no worker has ever served it",
        "check the name (cancelq status shows the lanes there are), or start a worker with this account",
        Exit.UNHEALTHY,
    )


def _unexpected(error: Exception) -> CommandFailed:
    said = redacted_text(f"{type(error).__name__}: {error}")
    remedy = "this is a fault of cancelq; cancelq --traceback … shows where"
    return CommandFailed(f"unexpected {said}", remedy, Exit.UNHEALTHY)
