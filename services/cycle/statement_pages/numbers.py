"""Amounts and quantities as a language writes them: always exact, however many digits they have."""

from collections.abc import Sequence
from decimal import Decimal

from babel.numbers import (
    format_currency,
    format_decimal,
    get_currency_name,
    get_currency_symbol,
    get_decimal_symbol,
    list_currencies,
)

from billing.money import ZERO, written
from services.cycle.statement_pages.languages import Language, word_for

MONEY_PLACES_MIN = 2


def number(amount: Decimal | int, language: Language, places_min: int = 0) -> str:
    """The number with all its digits, and zeros up to so many places.

    >>> number(Decimal("1234.5"), Language.PT_BR, 2), number(Decimal("0.000000000012"), Language.EN)
    ('1.234,50', '0.000000000012')
    """
    pattern = f"#,##0.{'0' * places_min}".rstrip(".")
    return format_decimal(_unsigned_zero(amount), pattern, language.locale, decimal_quantization=False)


def money(amount: Decimal, currency: str, language: Language) -> str:
    r"""The amount with its currency; what is no currency of the world's stands behind it, as a word.

    >>> money(Decimal("-1234.56"), "BRL", Language.EN), money(Decimal("1234.5"), "CREDIT", Language.EN)
    ('-R$1,234.56', '1,234.50\xa0credits')
    """
    if not _is_of_the_world(currency):
        return f"{number(amount, language, MONEY_PLACES_MIN)}\N{NO-BREAK SPACE}{symbol(currency, language)}"
    # Places by the pattern, not by the currency: a yen has none, and what a token costs in yen has several.
    return format_currency(
        _unsigned_zero(amount),
        currency,
        locale=language.locale,
        currency_digits=False,
        decimal_quantization=False,
    )


def symbol(currency: str, language: Language) -> str:
    """What stands for the currency in the head of a column.

    >>> [symbol(currency, Language.PT_BR) for currency in ("BRL", "USD", "CREDIT", "POINTS")]
    ['R$', 'US$', 'créditos', 'POINTS']
    """
    if _is_of_the_world(currency):
        return get_currency_symbol(currency, language.locale)
    return word_for(language, "currency", currency)


def currency_name(currency: str, language: Language) -> str:
    """The currency in full, as the name of a wallet.

    >>> currency_name("USD", Language.PT_BR), currency_name("CREDIT", Language.PT_BR)
    ('Dólar americano (USD)', 'créditos')
    """
    if _is_of_the_world(currency):
        return f"{get_currency_name(currency, locale=language.locale)} ({currency})"
    return word_for(language, "currency", currency)


def tails(amounts: Sequence[Decimal | None], language: Language, places_min: int) -> list[str]:
    """What each number of a column lacks behind it, so that the decimal points stand under one another.

    >>> tails([Decimal("0.125"), Decimal("10"), None], Language.EN, 0)
    ['', '.000', '']
    """
    places = [None if amount is None else max(_places(amount), places_min) for amount in amounts]
    most = max((one for one in places if one is not None), default=0)
    point = get_decimal_symbol(language.locale)
    return ["" if own is None or own == most else f"{'' if own else point}{'0' * (most - own)}" for own in places]


def _places(amount: Decimal) -> int:
    return len(written(amount).partition(".")[2])


def _unsigned_zero(amount: Decimal | int) -> Decimal | int:
    return amount or ZERO


def _is_of_the_world(currency: str) -> bool:
    return currency in list_currencies()
