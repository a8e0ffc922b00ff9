"""How the command line shows things."""

import sys
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

console = Console()
errors = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def as_json(value: Any) -> None:
    """Print a value as one JSON document; decimals as strings."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def shortened(text: str | None, length: int = 60) -> str:
    """As much of a text as a table has room for."""
    if text is None:
        return "–"
    return text if len(text) <= length else text[: length - 1] + "…"
