"""The secrets of one run. They look like those of the venues, and no other program ever saw them."""

from __future__ import annotations

import random
import string
from dataclasses import dataclass, field

_LETTERS = string.ascii_letters + string.digits
#: What a person may put into a passphrase, and what each encoding spells otherwise.
_ODD = "/+=&%?#@:;<>'\"\\,~^|{}$!"


@dataclass(frozen=True)
class Canary:
    """A secret and what it is. `value` is not shown."""

    name: str
    value: str = field(repr=False)


def make_canaries(rng: random.Random, names: tuple[str, ...]) -> dict[str, Canary]:
    """One for each name. Passphrases and passwords hold every character that an encoding spells otherwise."""
    return {name: Canary(name, _value(rng, odd="pass" in name)) for name in names}


def _value(rng: random.Random, *, odd: bool) -> str:
    letters = [rng.choice(_LETTERS) for _ in range(24 if odd else 40)]
    if odd:
        letters += _ODD
        rng.shuffle(letters)
    return "".join(letters)
