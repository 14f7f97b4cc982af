"""Where settings are written down: a TOML file, a secrets directory, the environment; and at which line.

Knows the places, not the settings: the class that describes them is handed in.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
)
from pydantic_settings import SettingsError as SourceError

from cancelq_worker.settings_files import (
    UnusableFile,
    read_config,
    read_secret,
    refuse_exposed,
    refuse_open_folder,
    secret_settings,
)

PREFIX = "CANCELQ_"
CONFIG_VARIABLE = PREFIX + "CONFIG"

# What Docker and Kubernetes put into every container for a service whose own name begins with "cancelq".
_SERVICE_LINK = re.compile(
    r"(?:\w+_)?(?:service_host|service_port(?:_\w+)?|port_\d+_(?:tcp|udp)(?:_(?:proto|port|addr))?)"
)


class SettingsError(Exception):
    """The settings cannot be used. `problems`: one line each, with place and remedy, never a secret."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Origin:
    """The three places as they were read, and where in them a setting was written."""

    def __init__(self, config: Path | None, env: Mapping[str, str]) -> None:
        """Reads the file (`config`, else what `CANCELQ_CONFIG` names, else none), finds the secret files.

        Case does not matter in the names of variables and secret files. Raises `SettingsError` where a place
        cannot be read, and where it holds secrets that others could read.
        """
        self.env = env
        self._given = {name.lower(): value for name, value in env.items()}
        self._variables = {name.lower(): name for name in env if name.lower().startswith(PREFIX.lower())}
        named = self._given.get(CONFIG_VARIABLE.lower())
        self.config = config or (Path(named) if named else None)
        self._file, self._lines = _from_file(self.config, "--config" if config else CONFIG_VARIABLE)
        self.secrets_dir = self._secrets_dir()
        self._secret_files = _secret_files(self.secrets_dir)

    def values(self, described_by: type[BaseSettings]) -> dict[str, Any]:
        """Everything given, merged: the environment over secret files over the TOML file."""
        secrets = _secrets_of(self._secret_files)
        merged = _merged(self._file, _decoded(_Variables(described_by, secrets), str(self.secrets_dir)))
        return _merged(merged, _decoded(_Variables(described_by, self._given), "the environment"))

    def where(self, path: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        """Where `path`, or the longest part of its beginning, was written, and what that place does not say.

        A name that goes on behind the path, as one that stands for a whole table does, says none of it. The place is
        empty where nothing of the path was written anywhere.
        """
        for length in range(len(path), 0, -1):
            name = (PREFIX + "__".join(path[:length])).lower()
            if self._given.get(name):
                return self._variables[name], path[length:]
            if name in self._secret_files:
                return str(self._secret_files[name]), path[length:]
            if path[:length] in self._lines:
                return f"{self.config}:{self._lines[path[:length]]}", path
            if longer := self._longer(f"{name}__"):
                return longer, path
        return "", path

    def _longer(self, beginning: str) -> str:
        """The first variable or secret file of which the name goes on behind `beginning`; empty if there is none."""
        for name, original in self._variables.items():
            if name.startswith(beginning) and self._given[name]:
                return original
        return next((str(file) for name, file in self._secret_files.items() if name.startswith(beginning)), "")

    def strays(self, fields: Iterable[str], tables: Iterable[str]) -> Iterator[str]:
        """A line for each variable and secret file of ours that names none of `fields`, or more than a field.

        What stands below one of the fields `tables` is not looked at.
        """
        for name, original in self._variables.items():
            if name == CONFIG_VARIABLE.lower() or self._is_service_link(name):
                continue
            if advice := _stray(name, fields, tables, also=("config",)):
                yield f"{original} is no setting{advice}"
        for name, file in self._secret_files.items():
            if advice := _stray(name, fields, tables):
                yield f"{file} is named after no setting{advice}"

    def _is_service_link(self, name: str) -> bool:
        if name.endswith("_port") and self._given[name].startswith(("tcp://", "udp://")):
            return True
        return _SERVICE_LINK.fullmatch(name.removeprefix(PREFIX.lower())) is not None

    def _secrets_dir(self) -> Path | None:
        named = self._given.get((PREFIX + "secrets_dir").lower()) or self._file.get("secrets_dir")
        if not isinstance(named, str) or not named:
            return None
        if not Path(named).is_dir():
            raise SettingsError([f"{named} is no directory; secrets_dir must name the one that holds the keys"])
        try:
            refuse_open_folder(Path(named))
        except UnusableFile as unusable:
            raise SettingsError([str(unusable)]) from None
        return Path(named)


class _Variables(EnvSettingsSource):
    """Variables as the caller passed them, never the process' own environment."""

    def __init__(self, described_by: type[BaseSettings], given: Mapping[str, str]) -> None:
        self._given = given
        super().__init__(described_by)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        # An empty variable is one that a compose file passed through without a value: not set.
        return {name: value for name, value in self._given.items() if value}


def _decoded(source: PydanticBaseSettingsSource, place: str) -> dict[str, Any]:
    try:
        return dict(source())
    except (SourceError, ValueError, RecursionError) as error:
        # The cause may quote the value, which may be a key: only the field's name is passed on.
        field = re.search(r'field "(\w+)"', str(error))
        what = f'"{field[1]}" in {place}' if field else f"a value in {place}"
        raise SettingsError([f"{what} cannot be read; write single values, or JSON for a table"]) from None


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(below, value)
        else:
            merged[key] = value
    return merged


def _from_file(config: Path | None, source: str) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """What a settings file gives, and on which line each of it stands."""
    if config is None:
        return {}, {}
    try:
        text, facts = read_config(config, f"{config} (from {source})")
        given = _toml(config, text)
        if secrets := secret_settings(given):
            refuse_exposed(facts, config, secrets[0])
    except UnusableFile as unusable:
        raise SettingsError([str(unusable)]) from None
    return given, _lines_of(text)


def _toml(path: Path, text: str) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 # most processes have no such file

    try:
        return tomllib.loads(text)
    except RecursionError:
        raise SettingsError([f"{path} is not valid TOML: it is nested too deep"]) from None
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at line (\d+), column \d+\)", str(error))
        place = f"{path}:{at[1]}" if at else str(path)
        reason = re.sub(r"\s*\(at .*\)", "", str(error))
        raise SettingsError([f'{place} is not valid TOML: {reason}; text values need "quotes"']) from None


_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_DOTTED = rf"({_KEY}(?:\s*\.\s*{_KEY})*)"
_HEADER = re.compile(rf"\s*\[\[?\s*{_DOTTED}\s*\]")
_ASSIGNMENT = re.compile(rf"\s*{_DOTTED}\s*=")


def _lines_of(text: str) -> dict[tuple[str, ...], int]:
    """The line, from 1, that each table and key of a valid TOML text first stands on."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = path = _keys(header[1])
        elif assignment := _ASSIGNMENT.match(line):
            path = table + _keys(assignment[1])
        else:
            continue
        for length in range(1, len(path) + 1):
            lines.setdefault(path[:length], number)
    return lines


def _keys(dotted: str) -> tuple[str, ...]:
    return tuple(key.strip("\"'") for key in re.findall(_KEY, dotted))


def _secret_files(folder: Path | None) -> dict[str, Path]:
    """Files named like variables, such as `cancelq_accounts__bitget__main__api_key`; others are not ours."""
    if folder is None:
        return {}
    ours = (file for file in sorted(folder.iterdir()) if file.name.lower().startswith(PREFIX.lower()))
    return {file.name.lower(): file for file in ours}


def _secrets_of(files: Mapping[str, Path]) -> dict[str, str]:
    """What the secret files hold; every one that cannot be used is told.

    Kubernetes exchanges all files at once, by turning a link. Read through where it points now, none is of before and
    another of after.
    """
    texts: dict[str, str] = {}
    problems: list[str] = []
    pointed = {folder: (folder / "..data").resolve() for folder in {file.parent for file in files.values()}}
    for name, file in files.items():
        at_once = pointed[file.parent] / file.name
        try:
            texts[name] = read_secret(at_once if at_once.exists() else file, file)
        except UnusableFile as unusable:
            problems.append(str(unusable))
    if problems:
        raise SettingsError(problems)
    return texts


def _stray(name: str, fields: Iterable[str], tables: Iterable[str], also: tuple[str, ...] = ()) -> str | None:
    """None where the first part of `name` is a field and nothing follows that may not; else how to go on."""
    first, *rest = name.removeprefix(PREFIX.lower()).split("__")
    known = [*fields, *also]
    if first in known:
        if not rest or first in tables:
            return None
        return f", did you mean {PREFIX}{first.upper()}?"
    close = difflib.get_close_matches(first, known, n=1)
    if close:
        return f", did you mean {PREFIX}{'__'.join([close[0], *rest]).upper()}?"
    return "; settings are " + ", ".join(PREFIX + field.upper() for field in known)
