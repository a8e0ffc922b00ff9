"""Wrong values as a person may see them, and as any database text can keep them."""

from decimal import Decimal

#: What a person is shown of a wrong value, and of a whole explanation.
VALUE_CHARACTERS_MAX = 200
DETAIL_CHARACTERS_MAX = 2000


def shown(value: object) -> str:
    """The value as Python writes it, cut to a readable length.

    >>> shown("a" * 300)[-22:]
    'aaaa… (302 characters)'
    """
    try:
        text = str(value) if isinstance(value, Decimal) else repr(value)
    except (RecursionError, ValueError):  # nested too deep, or a number of more digits than Python writes
        text = f"a {type(value).__name__} too large to show"
    return readable(text, VALUE_CHARACTERS_MAX)


def readable(text: str, longest: int = DETAIL_CHARACTERS_MAX) -> str:
    """The text without NUL and lone surrogates, which no database text keeps, cut to a length.

    >>> len(readable(chr(0)))
    4
    """
    cut = text if len(text) <= longest else f"{text[:longest]}… ({len(text)} characters)"
    return cut.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
