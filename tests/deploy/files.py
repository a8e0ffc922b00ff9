"""Reading docker-compose.yml, the Dockerfile and .dockerignore as Docker would, as far as the tests need it."""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from sandbox.stack import ROOT

#: Those of the compose file that run our own image, and those that do so for ever.
OURS = ("migrate", "usage", "payments", "api", "beat")
FOR_EVER = ("usage", "payments", "api", "beat")

_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<text>[^}]*))?\})")


def compose() -> dict[str, Any]:
    """The compose file, anchors resolved, variables not."""
    parsed: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return parsed


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def project() -> dict[str, Any]:
    """What pyproject.toml says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def pinned(distribution: str) -> str:
    """The version of a distribution in constraints.txt."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    return pins[distribution]


def variables() -> dict[str, set[tuple[str | None, str]]]:
    """Each `${VARIABLE}` of the compose file, with how it is written: ("-", default), ("?", message), (None, "")."""
    found: dict[str, set[tuple[str | None, str]]] = {}
    for match in _VARIABLE.finditer(str(compose())):
        if match["name"]:
            found.setdefault(match["name"], set()).add((match["kind"], match["text"] or ""))
    return found


def filled_in(value: Any, given: Mapping[str, str]) -> Any:
    """A part of the compose file with its variables replaced. Raises `KeyError` for one without value or default."""
    if isinstance(value, Mapping):
        return {key: filled_in(part, given) for key, part in value.items()}
    if isinstance(value, list):
        return [filled_in(part, given) for part in value]
    return _VARIABLE.sub(_replacement(given), value) if isinstance(value, str) else value


def _replacement(given: Mapping[str, str]) -> Callable[[re.Match[str]], str]:
    def replace(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        if match["kind"] == "-":
            return given.get(match["name"], match["text"])
        return given[match["name"]]

    return replace


def seconds(duration: str) -> int:
    """A duration of the compose file: 15s, 2m."""
    return int(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


def dockerfile() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, (word, rest), continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    lines = (line.strip() for line in text.splitlines())
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line and line[0] != "#")]


def stages() -> list[list[tuple[str, str]]]:
    """The Dockerfile's instructions, stage by stage; each begins with its FROM."""
    found: list[list[tuple[str, str]]] = []
    for instruction in dockerfile():
        if instruction[0] == "FROM":
            found.append([])
        found[-1].append(instruction)
    return found


def copied() -> Iterator[tuple[str, str]]:
    """What the Dockerfile copies out of the repository: (source, target), without closing slashes."""
    for word, rest in dockerfile():
        if word == "COPY" and "--from" not in rest:
            *sources, target = rest.split()
            yield from ((source.rstrip("/"), target) for source in sources)
