"""What is to become of each hold of a run, decided by the seed and its number alone. Imports nothing of the project."""

import random
from dataclasses import dataclass
from decimal import Decimal

from chaos.oracle import EXACT, ZERO, line_cost
from chaos.stream import CALL, PROMPT, SPEECH, Fields, item_of
from chaos.world import PREPAID, PRICES, CustomerOf, World

#: No clock is stepped as far: such a hold stays open for the whole run.
LONG_SECONDS, SHORT_SECONDS = 7200, 2
#: After the end of a short one, if no clock is stepped meanwhile.
LATE_SECONDS = 3.0
VAULTS = 0.35
TOKENS_MAX = 400_000
NOBODYS, ANOTHERS = "a hold that never was", "the hold of another customer"


@dataclass(frozen=True, slots=True)
class Use:
    """Usage that names the hold, or another one: so long after it was opened."""

    after_seconds: float
    items: tuple[Fields, ...]
    hold_id: str | None = None
    """none: the hold that was granted"""
    times: int = 1
    """how often the very same event is emitted"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for, and what follows once it is granted."""

    customer: CustomerOf
    amount: Decimal
    seconds: int
    uses: tuple[Use, ...] = ()
    release_after_seconds: float | None = None


def plan(world: World, name: str, number: int) -> Plan:
    """The plan of one holder's hold."""
    dice = random.Random(f"{world.seed} hold {name} {number}")
    if dice.random() < VAULTS:
        vault = dice.choice([one for one in world.customers if one.is_vault])
        return _with_care(dice, vault)
    return _without_care(dice, dice.choice([one for one in world.busy if "BRL" in one.currencies]))


def _with_care(dice: random.Random, vault: CustomerOf) -> Plan:
    """All of it, or a part, is used in time; or nothing is, and it is given back or forgotten."""
    tokens = [dice.randrange(1, TOKENS_MAX) for _ in range(dice.randrange(1, 4))]
    uses = tuple(Use(dice.uniform(0, 2), (_prompt(some),), times=dice.choice((1, 1, 1, 2))) for some in tokens)
    amount = _cost(tokens)
    match dice.randrange(5):
        case 0 | 1:
            return Plan(vault, amount, LONG_SECONDS, uses)
        case 2:
            return Plan(vault, amount, LONG_SECONDS, uses[:-1])
        case 3:
            return Plan(vault, amount, LONG_SECONDS, release_after_seconds=dice.uniform(0, 3))
        case _:
            return Plan(vault, amount, SHORT_SECONDS)


def _without_care(dice: random.Random, one: CustomerOf) -> Plan:
    """More is used than was kept back, or after its end, or by the name of a hold that is another's."""
    tokens = dice.randrange(1, TOKENS_MAX)
    amount = _cost([tokens])
    some, soon = (_prompt(max(1, tokens // 2)),), dice.uniform(0, 1.5)
    has_dollars = one.plan_id == PREPAID and "USD" in one.currencies
    uses: tuple[Use, ...]
    seconds, release_after = LONG_SECONDS, None
    match dice.randrange(7):
        case 0:
            uses = (Use(soon, some, times=2), Use(soon, (_prompt(tokens), _speech(dice))), Use(soon + 1, some))
        case 1:
            uses, release_after = (Use(soon, some), Use(soon, some)), dice.uniform(0, 3)
        case 2:
            uses, seconds = (Use(0, some), Use(SHORT_SECONDS + LATE_SECONDS, some)), SHORT_SECONDS
        case 3:
            uses, seconds = (Use(SHORT_SECONDS - 0.2, some), Use(SHORT_SECONDS, some)), SHORT_SECONDS
        case 4:
            uses = (Use(soon, (item_of(CALL, "0.5"),) if has_dollars else some), Use(soon, some))
        case 5:
            uses = (Use(soon, some, NOBODYS), Use(soon, some, ANOTHERS), Use(soon, some))
        case _:
            uses, release_after = (Use(soon, (_speech(dice),)),), dice.uniform(0, 2)
    return Plan(one, amount, seconds, uses, release_after)


def _prompt(tokens: int) -> Fields:
    return item_of(PROMPT, str(tokens))


def _speech(dice: random.Random) -> Fields:
    return item_of(SPEECH, str(Decimal(dice.randrange(1, 10**8)).scaleb(-6)))


def _cost(tokens: list[int]) -> Decimal:
    """What that costs who pays for tokens; the rounding of each line is in it."""
    price = next(price for price in PRICES if price.product == PROMPT)
    total = ZERO
    for some in tokens:
        total = EXACT.add(total, line_cost(price, Decimal(some)))
    return total
