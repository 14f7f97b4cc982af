"""Searching what a run left behind for its secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ops.canaries.secrets_made import Canary
from ops.canaries.spellings import spellings

# Signatures are many and long: they are searched for only in what is long enough to hold one.
_LONG = re.compile(rb"[A-Za-z0-9+/=_%\\.-]{40,}")
#: Forms in which signatures are searched for; all of them would take minutes.
_OF_SIGNATURES = ("plain", "percent", "json", "base64", "hex")


class Artefact(NamedTuple):
    """Something a run left behind: its kind, where it was, and its bytes."""

    kind: str
    name: str
    content: bytes


class Find(NamedTuple):
    """A secret where none may be: which one, in which form, and in what. The words around it are not repeated."""

    kind: str
    artefact: str
    canary: str
    form: str
    at: int

    def __str__(self) -> str:
        return f"{self.kind} {self.artefact}: {self.canary}, {self.form}, at byte {self.at}"


def search(artefacts: Iterable[Artefact], canaries: Sequence[Canary], signatures: Iterable[str] = ()) -> list[Find]:
    """Every form of every secret that is in an artefact, each once."""
    known = [(canary.name, spellings(canary.value)) for canary in canaries]
    signed = [spellings(signature) for signature in dict.fromkeys(signatures)]
    finds: list[Find] = []
    for artefact in artefacts:
        finds += _canaries_in(artefact, known)
        finds += _signatures_in(artefact, signed)
    return finds


def files_below(folder: Path, kind: str) -> Iterator[Artefact]:
    """Every file below a folder."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            yield Artefact(kind, str(file.relative_to(folder)), file.read_bytes())


def _canaries_in(artefact: Artefact, known: list[tuple[str, dict[str, set[bytes]]]]) -> Iterator[Find]:
    for name, forms in known:
        for form, spelt in forms.items():
            at = _first(artefact.content, spelt)
            if at >= 0:
                yield Find(artefact.kind, artefact.name, name, form, at)


def _signatures_in(artefact: Artefact, signed: list[dict[str, set[bytes]]]) -> Iterator[Find]:
    if not signed:
        return
    long = b" ".join(_LONG.findall(artefact.content))
    for forms in signed:
        for form in _OF_SIGNATURES:
            at = _first(long, forms[form])
            if at >= 0:
                yield Find(artefact.kind, artefact.name, "a signature", form, at)


def _first(content: bytes, spelt: set[bytes]) -> int:
    return max((content.find(one) for one in spelt), default=-1)
