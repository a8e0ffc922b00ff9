"""Reading numbers out of usage objects, and writing items: what the adapters share."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from centavo.errors import UsageMalformed
from centavo.events import Item


class Usage:
    """A provider's usage object, or a part of one, read by field names.

    A field may be an attribute or a key, and may have several names (`prompt_tokens`, `input_tokens`); the
    first that is there and not null counts.
    """

    def __init__(self, source: object, whose: str) -> None:
        self._source = source
        self._whose = whose

    def field(self, *names: str) -> Any:
        for name in names:
            value = self._get(name)
            if value is not None:
                return value
        return None

    def tokens(self, *names: str) -> int:
        """A count of tokens; 0 when absent. Raises `UsageMalformed` unless it is a whole number, 0 or more."""
        value = self.field(*names)
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise UsageMalformed(f"{self._whose} usage says {names[0]} = {value!r}; expected a count of tokens")
        return value

    def required_tokens(self, *names: str) -> int:
        if self.field(*names) is None:
            raise UsageMalformed(
                f"{self._whose} usage has no {' or '.join(names)}: {self._source!r}. Pass the usage object of "
                f"the finished response; streams report it only at their end, and some only when asked to."
            )
        return self.tokens(*names)

    def part(self, *names: str) -> "Usage":
        """A nested object; an absent one reads as empty."""
        return Usage(self.field(*names), self._whose)

    def _get(self, name: str) -> Any:
        if isinstance(self._source, Mapping):
            return self._source.get(name)
        return getattr(self._source, name, None)


def rest(whose: str, total: int, of: str, **parts: int) -> int:
    """What remains of a total without the parts that it includes. Raises `UsageMalformed` below zero."""
    remaining = total - sum(parts.values())
    if remaining < 0:
        listed = ", ".join(f"{name} = {count}" for name, count in parts.items())
        raise UsageMalformed(f"{whose} usage says {of} = {total}, less than the parts of it: {listed}")
    return remaining


def check_total(whose: str, stated: int | None, *sums: int) -> None:
    """The provider's own total, where it states one, is one of these sums; otherwise a token is unknown."""
    if stated is not None and stated not in sums:
        raise UsageMalformed(
            f"{whose} usage states a total of {stated} tokens, but its parts sum to {sums[0]}; "
            f"some tokens would be billed twice or not at all"
        )


def items(provider: str, model: str, quantities: Iterable[tuple[str, int]]) -> tuple[Item, ...]:
    """One item for each category that has tokens; `llm_prompt` of zero if none has."""
    counted = [(category, count) for category, count in quantities if count] or [("llm_prompt", 0)]
    return tuple(
        Item(category=category, provider=provider, model=model, unit="token", quantity=Decimal(count))
        for category, count in counted
    )
