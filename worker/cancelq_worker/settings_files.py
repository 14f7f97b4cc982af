"""Files that settings are read from: who else could read them, how large they may be, what they may hold.

A file with a secret must be closed to everybody but its owner. One exception: the group may read the file of another
user where that is how this process reads it; so Kubernetes hands secrets to a process that is not root. What is judged
is the open file, not its name: links are followed, and nobody can exchange it between the look and the read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

#: Bytes of a secret; more is a file that was put there by mistake.
SECRET_MOST: Final = 65_536
#: Bytes of a settings file; those of a thousand accounts take a tenth of it.
CONFIG_MOST: Final = 1_048_576

_SECRETS_OF_ACCOUNTS = ("api_key", "api_secret", "passphrase")
_URLS = ("redis_url", "rq_redis_url")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class UnusableFile(Exception):
    """A file cannot be used as it is; the message names it, the reason and the remedy, and nothing it holds."""


def read_secret(file: Path, shown: Path) -> str:
    """The text of a file that holds one secret, without blanks and line ends around it.

    `shown` stands for it in messages. Raises `UnusableFile` if others could read or change it, and if it is empty, too
    large, or no text.
    """
    # A pipe that nobody writes to must not stop the process.
    content, facts = _read(file, shown, SECRET_MOST, os.O_NONBLOCK)
    refuse_exposed(facts, shown)
    text = _text(content, shown).strip()
    if not text:
        raise UnusableFile(f"{shown} is empty; put the secret into it, or remove it")
    return text


def read_config(file: Path, shown: str) -> tuple[str, os.stat_result]:
    """The text of a settings file, and what the system tells of it. Raises `UnusableFile`."""
    content, facts = _read(file, shown, CONFIG_MOST)
    return _text(content, shown), facts


def refuse_exposed(
    facts: os.stat_result, shown: Path | str, secret: str = "a secret", *, reader: int | None = None
) -> None:
    """Raises `UnusableFile` if anybody could read or change a file who must not. `secret` names what it holds, `reader`
    the user who reads it: by default this process' own."""
    user, mode = os.geteuid() if reader is None else reader, stat.S_IMODE(facts.st_mode)
    ours = facts.st_uid == user
    by_group = stat.S_IRGRP if not ours and user != 0 else 0
    open_to = mode & _OTHERS & ~by_group
    if not open_to:
        return
    who = "everybody" if open_to & stat.S_IRWXO else "its group"
    may = "read" if open_to & (stat.S_IRGRP | stat.S_IROTH) else "change or run"
    raise UnusableFile(f"{shown} holds {secret} and {who} may {may} it (mode {mode:04o}); {_remedy(shown, ours)}")


def refuse_open_folder(folder: Path) -> None:
    """Raises `UnusableFile` if others could put files of their own into a folder of secrets.

    A folder that is sticky, as those that Kubernetes mounts, keeps them from exchanging what is there.
    """
    facts = folder.stat()
    mode = stat.S_IMODE(facts.st_mode)
    if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
        who = "everybody" if mode & stat.S_IWOTH else "its group"
        raise UnusableFile(f"{folder} holds secrets and {who} may change it (mode {mode:04o}); chmod 700 {folder}")


def secret_settings(given: Mapping[str, Any]) -> list[str]:
    """The names of the settings in a settings file that are secrets, or hold one."""
    named = [name for name in _URLS if passwords_in(str(given.get(name, "")))]
    accounts = given.get("accounts")
    for venue, by_name in _tables(accounts):
        for name, account in _tables(by_name):
            named += [f"accounts.{venue}.{name}.{field}" for field in _SECRETS_OF_ACCOUNTS if account.get(field)]
    return named


def passwords_in(url: str) -> list[str]:
    """The passwords a URL holds, as it spells them and as they are: behind a user's name, and in its query."""
    parts = _split(url)
    if parts is None:
        return []
    login, at, _ = parts.netloc.rpartition("@")
    spelt = [login.partition(":")[2]] if at else []
    for pair in parts.query.split("&"):
        name, _, value = pair.partition("=")
        spelt += [value] * ("password" in name.lower())
    return [password for one in spelt if one for password in dict.fromkeys((one, unquote(one)))]


def _read(file: Path, shown: Path | str, most: int, flags: int = 0) -> tuple[bytes, os.stat_result]:
    try:
        with open(os.open(file, os.O_RDONLY | os.O_CLOEXEC | flags), "rb") as opened:
            facts = os.fstat(opened.fileno())
            if flags & os.O_NONBLOCK and not stat.S_ISREG(facts.st_mode):
                raise UnusableFile(f"{shown} is no plain file; put the secret into one")
            content = opened.read(most + 1)
    except OSError as error:
        raise UnusableFile(f"{shown} cannot be read: {error.strerror}") from None
    if len(content) > most:
        raise UnusableFile(f"{shown} is larger than {most} bytes; it must hold settings alone")
    return content, facts


def _text(content: bytes, shown: Path | str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        # The cause would show the bytes.
        raise UnusableFile(f"{shown} cannot be read: it is not UTF-8 text") from None


def _remedy(shown: Path | str, ours: bool) -> str:
    if ours and not os.statvfs(shown).f_flag & os.ST_RDONLY:
        return f"chmod 600 {shown}"
    return "let its owner close it (chmod 400), or whatever mounts it (in Kubernetes: defaultMode: 0400)"


def _tables(given: Any) -> list[tuple[str, Mapping[str, Any]]]:
    if not isinstance(given, Mapping):
        return []
    return [(str(name), table) for name, table in given.items() if isinstance(table, Mapping)]


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None
