"""How a command ends: the exit codes, and the error that carries one to the user."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Stable for scripts. 65 to 78 mean what sysexits.h means by them."""

    OK = 0
    # Not all as asked: something is unhealthy, unknown, open or unfinished.
    UNHEALTHY = 1
    USAGE = 2
    BAD_INPUT = 65
    UNREACHABLE = 69
    KEY_REFUSED = 77
    CONFIGURATION = 78
    INTERRUPTED = 130


class EmbeddedServerError(Exception):
    """The embedded server cannot run here; the message names the cause and the remedy."""


class CommandFailed(Exception):
    """A command cannot do what was asked: what is wrong, what to do about it, and how to exit.

    `message` and `remedy` may have several lines and never hold a secret.
    """

    def __init__(self, message: str, remedy: str, code: Exit) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.code = code
