"""How the command line shows things.

What is shown comes from producers and operators, so nothing in it is taken for markup, and no control
character reaches the terminal.
"""

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from urllib.parse import unquote

import msgspec
import typer
from pydantic import SecretStr
from rich import box
from rich.console import Console
from rich.table import Table

from billing.money import written
from config.settings import settings

console = Console(markup=False, emoji=False, highlight=False)
errors = Console(markup=False, emoji=False, highlight=False, stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

NOTHING = "–"
_SECRET_CHARACTERS_MIN = 4
_PASSWORD_IN_QUERY = re.compile(r"((?:^|[?&])\w*password=)[^&]*", re.IGNORECASE)


def as_json(value: Any) -> None:
    """Print a value as one JSON document; decimals as strings, as people write them."""
    document = _written(msgspec.to_builtins(value, builtin_types=(Decimal,)))
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    sys.stdout.buffer.flush()


def _written(value: Any) -> Any:
    match value:
        case Decimal():
            return written(value)
        case dict():
            return {name: _written(one) for name, one in value.items()}
        case list() | tuple():
            return [_written(one) for one in value]
    return value


def a_table(*columns: str, numbers: tuple[str, ...] = (), whole: tuple[str, ...] = ()) -> Table:
    """A table that fits into 80 columns: nothing is cut off, what is too long goes on in the next line.

    Columns that are `whole` keep their lines as long as others can be folded.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        justify: Literal["right", "left"] = "right" if name in numbers else "left"
        table.add_column(name, overflow="fold", justify=justify, no_wrap=name in whole)
    return table


def moment(at: datetime) -> str:
    """A moment as people read it, in UTC.

    >>> from datetime import UTC
    >>> moment(datetime(2026, 11, 24, 13, 5, tzinfo=UTC))
    '2026-11-24 13:05'
    """
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def plain(text: str | None) -> str:
    r"""A text from outside, on one line and without control characters.

    >>> print(plain("a" + chr(10) + chr(27) + "[31mb"))
    a\n\x1b[31mb
    """
    if not text:
        return NOTHING
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def without_password(url: str) -> str:
    """An address as it may be shown, even one in which the password is not written as it should be.

    >>> without_password("postgresql://ana:se@cr/et@db.example/centavo?sslmode=require&sslpassword=b")
    'postgresql://ana@db.example/centavo?sslmode=require&sslpassword=…'
    >>> without_password("redis://:secret@a.example:1/0;redis://:secret@b.example:2/0")
    'redis://a.example:1/0;redis://b.example:2/0'
    """
    return ";".join(_one_without_password(part) for part in re.split(r";(?=\w+://)", url))


def _one_without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "…"  # no address at all: whatever it is, it may be the password
    credentials, at, place = rest.rpartition("@")
    user = credentials.partition(":")[0]
    return _PASSWORD_IN_QUERY.sub(r"\1…", f"{scheme}://{user}{at if user else ''}{place}")


def hidden(text: str) -> str:
    """A message without the secrets of this process, whoever wrote it."""
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, "…")
    return text


def _secrets() -> Iterator[str]:
    for name in ("database_url", "broker_url", "stripe_secret_key"):
        value: SecretStr | None = getattr(settings(), name)
        if value is not None:
            yield from _secrets_in(value.get_secret_value())
    yield from (secret for secret in settings().webhook_secrets if len(secret) >= _SECRET_CHARACTERS_MIN)


def _secrets_in(value: str) -> Iterator[str]:
    """The value, its password, and what a client takes for the host when an @ in the password is not escaped."""
    password = value.partition("://")[2].rpartition("@")[0].partition(":")[2]
    query = _PASSWORD_IN_QUERY.search(value)
    from_query = query[0].partition("=")[2] if query else ""
    for secret in (value, password, unquote(password), from_query, unquote(from_query)):
        if len(secret) >= _SECRET_CHARACTERS_MIN:
            yield secret
    yield from (f"{tail}@" for tail in password.split("@")[1:] if tail)
