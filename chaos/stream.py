"""What a producer emits, decided by its seed alone (times follow its clock). Imports nothing of the project.

Nine in ten are new. The tenth was emitted before: at once, somewhat later, much later, or by another producer, from a
stream that all producers have in common and each goes through by itself.
"""

import itertools
import json
import random
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from chaos.world import AGE_MAX, FEATURES, PRICES, SERVICE, TIERED, TOKEN, USERS, CustomerOf, World

DUPLICATES = 0.10
COMMON = 0.04
LATE = 0.02
HELD_BACK = 0.02
HOT = 0.25
RECENT_MAX = 3000
OLD_MAX = 2000
#: In so many events of the common stream, producers disagree about what was used.
CONFLICT_EACH = 101
#: What was recorded months ago, and may be archived by now, comes again as well; now and then as something else.
LONG_AGO, LONG_AGO_CONFLICT = 0.01, 0.03
PAST_EVENTS = 40

PROMPT, COMPLETION = ("llm_prompt", "openai", "gpt-4", TOKEN), ("llm_completion", "openai", "gpt-4", TOKEN)
SPEECH, VOICE, CALL = (
    ("stt", "deepgram", "nova", "second"),
    ("tts", "eleven", "turbo", "character"),
    ("telephony", "twilio", "voice", "minute"),
)
assert {PROMPT, COMPLETION, SPEECH, VOICE, CALL} == {price.product for price in PRICES}

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Emission:
    """The fields of an event; one that is spoiled is no event, and travels as these bytes."""

    fields: Fields
    spoiled: bytes | None = None


class Stream:
    """One producer's events, without end."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name
        self._dice = random.Random(f"{world.seed} {name}")
        self._hot = [c for c in world.customers if c.customer_id in {"customer-000", "customer-001"}]
        self._busy = world.busy
        self._past = past(world)
        self._numbers = itertools.count()
        self._recent: deque[Emission] = deque(maxlen=RECENT_MAX)
        self._old: list[Emission] = []
        self._held: deque[tuple[int, Emission]] = deque()
        self._common = common(world, name)

    def next(self, now: datetime) -> Emission:
        """What is emitted next, at this moment of the producer's clock."""
        dice = self._dice
        number = next(self._numbers)
        if self._held and self._held[0][0] <= number:
            return self._held.popleft()[1]
        chance = dice.random()
        if chance < DUPLICATES - COMMON and self._recent:
            return self._again()
        if chance < DUPLICATES:
            return next(self._common)
        if chance > 1 - LONG_AGO:
            return self._long_ago()
        made = self._new(number, now)
        if made.spoiled is None:
            self._recent.append(made)
            if number % 40 == 0 and len(self._old) < OLD_MAX:
                self._old.append(made)
        if dice.random() < HELD_BACK:
            self._held.append((number + 1500, made))
            return self._new(next(self._numbers), now)
        return made

    def _again(self) -> Emission:
        chance = self._dice.random()
        if chance < 0.4:
            return self._recent[-1]
        if chance < 0.7 or not self._old:
            return self._dice.choice(self._recent)
        return self._dice.choice(self._old)

    def _long_ago(self) -> Emission:
        fields = self._dice.choice(self._past)
        if self._dice.random() < LONG_AGO_CONFLICT:
            return Emission(fields | {"items": [item_of(PROMPT, "1"), *fields["items"]]})
        return Emission(fields)

    def _new(self, number: int, now: datetime) -> Emission:
        dice = self._dice
        customer = dice.choice(self._hot if dice.random() < HOT else self._busy)
        occurred_at = now - timedelta(microseconds=dice.randrange(600_000_000))
        if dice.random() < LATE:
            occurred_at = self._world.month_began_at - timedelta(seconds=dice.randrange(40_000, 86_400))
        fields = _event(customer, f"{self._name}-{number}", occurred_at, _items(dice, customer, self._world))
        return _with_a_flaw(fields, dice, now) if dice.random() < 0.015 else Emission(fields)


def plain(dice: random.Random, world: World, key: str, now: datetime) -> Fields:
    """The fields of an event that can be charged, of any customer, in the last ten minutes."""
    customer = dice.choice(world.customers)
    occurred_at = now - timedelta(microseconds=dice.randrange(600_000_000))
    return _event(customer, key, occurred_at, _items(dice, customer, world))


def past(world: World) -> list[Fields]:
    """What was used long before the run, month by month."""
    dice = random.Random(f"{world.seed} past")
    veterans = [one for one in world.customers if one.is_veteran]
    return [
        _event(
            one,
            f"past-{one.tenant_id}-{one.customer_id}-{month:%Y%m}-{number}",
            month + timedelta(minutes=dice.randrange(26 * 24 * 60)),
            [item_of(PROMPT, str(dice.randrange(1, 90_000))), item_of(SPEECH, str(dice.randrange(1, 999)))],
        )
        for month in world.past_months
        for one in veterans
        for number in range(PAST_EVENTS)
    ]


def common(world: World, name: str) -> Iterator[Emission]:
    """Events that every producer emits, with the same key and the same time; some of them with another quantity."""
    dice = random.Random(f"{world.seed} common")
    variant = zlib.crc32(name.encode()) % 2
    busy = world.busy
    for number in itertools.count():
        customer = dice.choice(busy)
        occurred_at = world.began_at - timedelta(milliseconds=number % 3_000_000)
        items = _items(dice, customer, world)
        if number % CONFLICT_EACH == 0:
            items[0]["quantity"] = str(Decimal(items[0]["quantity"]) + variant)
        yield Emission(_event(customer, f"common-{number}", occurred_at, items))


def _event(customer: CustomerOf, key: str, occurred_at: datetime, items: list[Fields]) -> Fields:
    return {
        "tenant_id": customer.tenant_id,
        "customer_id": customer.customer_id,
        "key": key,
        "occurred_at": occurred_at,
        "items": items,
    } | context_of(key)


def context_of(key: str) -> Fields:
    """By whom, and for what: the same for the same key, and not all of it each time."""
    bits = zlib.crc32(key.encode())
    said = {
        "user_id": (None, *(f"user-{number}" for number in range(USERS)))[bits % (USERS + 1)],
        "organization_id": (None, "org-a", "org-b")[(bits >> 8) % 3],
        "feature": (None, *FEATURES)[(bits >> 12) % 3],
        "service_type": (None, SERVICE)[(bits >> 16) % 2],
    }
    return {name: value for name, value in said.items() if value is not None}


def _items(dice: random.Random, customer: CustomerOf, world: World) -> list[Fields]:
    """One to three of what this customer can pay for, in one currency."""
    if customer.plan_id != TIERED and "USD" in customer.currencies and dice.random() < 0.1:
        return [item_of(CALL, str(Decimal(dice.randrange(1, 90_000)).scaleb(-3)))]
    mean = world.tokens_mean
    items = [item_of(PROMPT, str(dice.randrange(1, 2 * mean)))]
    if dice.random() < 0.6:
        items.append(item_of(COMPLETION, str(dice.randrange(0, mean))))
    if dice.random() < 0.15:
        items.append(item_of(SPEECH, str(Decimal(dice.randrange(1, 10**9)).scaleb(-6))))
    elif dice.random() < 0.15:
        items.append(item_of(VOICE, str(dice.randrange(1, 9000))))
    return items


def item_of(product: tuple[str, str, str, str], quantity: str) -> Fields:
    return dict(zip(("category", "provider", "model", "unit"), product, strict=True)) | {"quantity": quantity}


def _with_a_flaw(fields: Fields, dice: random.Random, now: datetime) -> Emission:
    """Something that can't be charged, one for each reason."""
    item = fields["items"][0]
    match dice.randrange(9):
        case 0:
            spoiled = {**fields, "occurred_at": fields["occurred_at"].isoformat(), "colour": "blue"}
            return Emission(fields, json.dumps(spoiled, separators=(",", ":")).encode())
        case 1:
            item["quantity"] = "-1"
            spoiled = {**fields, "occurred_at": fields["occurred_at"].isoformat()}
            return Emission(fields, json.dumps(spoiled, separators=(",", ":")).encode())
        case 2:
            fields["items"].append(item_of(("llm_prompt", "nobody", "unheard-of", "word"), "3"))
        case 3:
            fields["customer_id"] = f"stranger-{dice.randrange(1000)}"
        case 4:
            fields["tenant_id"] = f"strangers-{dice.randrange(10)}"
        case 5:
            fields["items"] += [item_of(SPEECH, "1"), item_of(CALL, "1")]
        case 6:
            fields["items"] = [item_of(CALL, "2.5")]  # who has no dollars can't pay for it
        case 7:
            item["quantity"] = dice.choice(("100000001", "1.5"))
        case _:
            is_old = dice.random() < 0.5
            fields["occurred_at"] = now - 2 * AGE_MAX if is_old else now + timedelta(days=1)
    return Emission(fields)
