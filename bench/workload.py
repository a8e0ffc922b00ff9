"""The events that every benchmark bills: the same ones, in the same order, on every run and machine.

An event is a pure function of its number, so that a worker under test, the naive reference and the ceiling
can each build theirs on their own and still be compared. Nothing here imports the project.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

TENANT = "bench"
PROVIDER = "openai"
MODEL = "gpt-4"
UNIT = "token"

# Sixteen equally likely values each, near the quantiles of a published trace of code completions
# (Azure LLM inference, 2023): many short prompts, a long tail, and answers of a few words.
# Means: 2,046 tokens in, 28.0 out.
PROMPT_TOKENS = (40, 140, 260, 460, 700, 920, 1100, 1330, 1600, 1890, 2210, 2560, 3030, 3850, 5300, 7350)
COMPLETION_TOKENS = (6, 7, 7, 8, 9, 10, 11, 13, 14, 16, 18, 22, 28, 38, 61, 180)

_64_BITS = (1 << 64) - 1
# 2026-11-01T00:00:00Z, in milliseconds: the time part of the first key.
_FIRST_KEY_MS = 1_793_491_200_000
_KEYS_PER_MS = 30


@dataclass(frozen=True, slots=True)
class Usage:
    """One event to bill. `customer` is a number from 0; `customer_name` gives the id as text."""

    number: int
    customer: int
    key: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def customer_of(number: int, customers: int, *, hot: bool = False) -> int:
    """The customer, 0 ≤ c < `customers`, that event `number` belongs to.

    Uniform over all of them; with `hot`, every even event belongs to customer 0 instead.

    >>> [customer_of(number, 10_000) for number in range(4)]
    [7535, 5700, 5679, 2444]
    >>> [customer_of(number, 10_000, hot=True) for number in range(4)]
    [0, 5700, 0, 2444]
    """
    if hot and number % 2 == 0:
        return 0
    return _mixed(number) % customers


def customer_name(customer: int) -> str:
    """The customer's id as the outside world writes it; SQL can build the same with `lpad`."""
    return f"customer-{customer:07d}"


def usage(number: int, customers: int, *, hot: bool = False) -> Usage:
    """Event `number` of a run over `customers` customers."""
    # Other bits than those that pick the customer, or each customer would have one size of event.
    bits = _mixed(number) >> 48
    return Usage(
        number=number,
        customer=customer_of(number, customers, hot=hot),
        key=key_of(number),
        prompt_tokens=PROMPT_TOKENS[bits & 15],
        completion_tokens=COMPLETION_TOKENS[bits >> 4 & 15],
    )


def usages(first: int, count: int, customers: int, *, hot: bool = False) -> Iterator[Usage]:
    """Events `first` to `first + count - 1`. Rounds on one database use ranges that don't overlap."""
    return (usage(number, customers, hot=hot) for number in range(first, first + count))


def key_of(number: int) -> str:
    """A UUIDv7 whose time part grows by a millisecond every 30 events.

    Producers make keys that rise with time, so index pages are filled in order; random keys would measure
    another database.
    """
    ms = _FIRST_KEY_MS + number // _KEYS_PER_MS
    random_part = _mixed(number + 1)
    version_7 = 0x7 << 76 | (random_part & 0xFFF) << 64
    variant = 0b10 << 62 | random_part >> 2
    return str(uuid.UUID(int=ms << 80 | version_7 | variant))


def _mixed(number: int) -> int:
    """SplitMix64's output for `number`: 64 evenly spread bits, the same on every machine."""
    z = (number + 1) * 0x9E3779B97F4A7C15 & _64_BITS
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _64_BITS
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _64_BITS
    return z ^ z >> 31
