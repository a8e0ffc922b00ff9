"""A section as a table: what each line was for, how much of it, and what it came to."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from billing.money import ZERO
from billing.statements import Line, LineKind
from services.cycle.statement_pages.dates import day
from services.cycle.statement_pages.languages import Language, word_for, words
from services.cycle.statement_pages.numbers import MONEY_PLACES_MIN, number, symbol, tails
from services.cycle.statement_pages.sections import Section, SectionKind

_PRODUCT = ("model", "provider", "category")
#: Kinds whose heading says it all: their lines are named for the product.
_NAMED_FOR_THE_PRODUCT = (LineKind.USAGE, LineKind.COVERED)
_DOT = " · "


@dataclass(frozen=True, slots=True)
class Cell:
    """A text, what is worth knowing beneath it, and the digits it lacks beside the longest of its column."""

    text: str
    small: tuple[str, ...] = ()
    tail: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    head: str
    is_number: bool
    cells: tuple[Cell, ...]
    total: Cell


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length. The first says what a row is for; the totals are empty where nothing adds up."""

    title: str
    columns: tuple[Column, ...]
    has_total: bool


def table_of(section: Section, time_zone: str, language: Language) -> Table:
    """The section's table, without the columns that none of its lines has anything for."""
    columns = (
        _what_column(section, time_zone, language),
        *_quantity_columns(section, language),
        *_events_column(section, language),
        *_amount_column(section, language),
    )
    return Table(
        words(language, f"section.{section.kind}"), columns, has_total=any(column.total.text for column in columns[1:])
    )


def shown(text: str) -> str:
    r"""A text from outside without what can't be seen: controls, and what would turn the text around it.

    >>> shown("a\x1b[31mb\u202ec")
    'a�[31mb�c'
    """
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_hidden(character) else character for character in text)


def _is_hidden(character: str) -> bool:
    turns = unicodedata.bidirectional(character) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return turns or unicodedata.category(character) in {"Cc", "Cs"}


def _what_column(section: Section, time_zone: str, language: Language) -> Column:
    cells = tuple(_what(line, time_zone, language) for line in section.lines)
    return Column(words(language, "head.what"), False, cells, Cell(words(language, "subtotal")))


def _quantity_columns(section: Section, language: Language) -> Iterator[Column]:
    quantities = [line.quantity for line in section.lines]
    if any(quantity is not None for quantity in quantities):
        yield _number_column(words(language, "head.quantity"), quantities, _total_quantity(section), language)
        units = tuple(Cell(shown(word_for(language, "unit", line.unit or ""))) for line in section.lines)
        yield Column(words(language, "head.unit"), False, units, Cell(""))


def _total_quantity(section: Section) -> Decimal | None:
    """What the quantities come to, where they are of one unit."""
    known = [line.quantity for line in section.lines if line.quantity is not None]
    is_one_unit = len({line.unit for line in section.lines}) == 1 and len(known) == len(section.lines)
    return sum(known, ZERO) if is_one_unit else None


def _events_column(section: Section, language: Language) -> Iterator[Column]:
    """Without a total: an event with two items is counted in two lines."""
    if any(line.events is not None for line in section.lines):
        events = [None if line.events is None else Decimal(line.events) for line in section.lines]
        yield _number_column(words(language, "head.events"), events, None, language)


def _amount_column(section: Section, language: Language) -> Iterator[Column]:
    """What the lines add to their account; usage, which takes from it, is told as what it cost."""
    if section.account is None or section.currency is None:
        return
    is_cost = section.kind == SectionKind.USAGE
    head = words(
        language, "head.cost" if is_cost else "head.amount", currency=shown(symbol(section.currency, language))
    )
    sign = -1 if is_cost else 1
    amounts = [sign * line.amount for line in section.lines]
    yield _number_column(head, amounts, sign * section.total, language, MONEY_PLACES_MIN)


def _number_column(
    head: str, amounts: Sequence[Decimal | None], total: Decimal | None, language: Language, places_min: int = 0
) -> Column:
    every = [*amounts, total]
    cells = [
        Cell("" if amount is None else number(amount, language, places_min), tail=tail)
        for amount, tail in zip(every, tails(every, language, places_min), strict=True)
    ]
    return Column(head, True, tuple(cells[:-1]), cells[-1])


def _what(line: Line, time_zone: str, language: Language) -> Cell:
    about = {name: value for name, value in line.about.items() if value not in (None, "")}
    product = [_about_word(name, about.pop(name), language) for name in _PRODUCT if name in about]
    if product and line.kind in _NAMED_FOR_THE_PRODUCT:
        name = product.pop(0)
    elif line.kind == LineKind.TIER and "tier" in about:
        name = words(language, "kind.tier.number", number=_value(about.pop("tier")))
    else:
        name = words(language, f"kind.{line.kind}")
    others = (_named(language, "about", name, _about_word(name, value, language)) for name, value in about.items())
    small = (_DOT.join(product), *others, *_references(line, time_zone, language))
    return Cell(name, tuple(text for text in small if text))


def _about_word(name: str, value: Any, language: Language) -> str:
    return word_for(language, name, _value(value))


def _references(line: Line, time_zone: str, language: Language) -> Iterator[str]:
    for name, value in line.reference.items():
        if value not in (None, ""):
            yield _named(language, "reference", name, _moment(name, value, time_zone, language) or _value(value))


def _named(language: Language, group: str, name: str, value: str) -> str:
    word = word_for(language, group, name)
    return f"{shown(word)}: {value}"


def _moment(name: str, value: Any, time_zone: str, language: Language) -> str | None:
    """The day, where the name and the value say that it is a moment."""
    if not (isinstance(value, str) and name.endswith(("_at", "_start"))):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return day(moment, time_zone, language) if moment.tzinfo else None


def _value(value: Any) -> str:
    match value:
        case dict():
            return _DOT.join(f"{shown(str(name))} {_value(one)}" for name, one in value.items())
        case list():
            return _DOT.join(_value(one) for one in value)
    return shown(str(value))
