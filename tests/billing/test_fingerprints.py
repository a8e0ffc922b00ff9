"""The same event again, or another one under its key."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.fingerprints import FINGERPRINT_BYTES, fingerprint
from centavo import Item
from tests.billing.made import an_event, an_item

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
#: Any text of an event, those included that a separator might be mistaken for.
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=4) | st.text(
    "\x1f\x1e\x1d|,: a", min_size=1, max_size=4
)
items = st.builds(
    Item,
    category=names,
    provider=names,
    model=names,
    unit=names,
    quantity=st.decimals(0, 10**6, places=6),
)
some_items = st.lists(items, min_size=1, max_size=4)


@given(some_items, st.randoms())
def test_the_order_of_items_does_not_matter(used: list[Item], chance: Any) -> None:
    shuffled = list(used)
    chance.shuffle(shuffled)

    assert fingerprint(an_event(*used)) == fingerprint(an_event(*shuffled))


@pytest.mark.parametrize(
    "spellings", [("5", "5.0", "5.000000000000", "5E0", "0.5E1"), ("0", "0.0", "-0", "0E3"), ("1000", "1E3", "1000.0")]
)
def test_the_spelling_of_a_quantity_does_not_matter(spellings: tuple[str, ...]) -> None:
    assert len({fingerprint(an_event(an_item(Decimal(text)))) for text in spellings}) == 1


def test_the_zone_of_the_time_does_not_matter() -> None:
    elsewhere = NOON.astimezone(timezone(timedelta(hours=5, minutes=45)))

    assert fingerprint(an_event(occurred_at=NOON)) == fingerprint(an_event(occurred_at=elsewhere))


@pytest.mark.parametrize(
    "context", [{"metadata": {"a": 1}}, {"user_id": "u"}, {"session_id": "s"}, {"key": "other"}, {"feature": "chat"}]
)
def test_context_does_not_matter(context: dict[str, Any]) -> None:
    """A retry may carry other context; the key is what the fingerprint is compared under."""
    assert fingerprint(an_event(**context)) == fingerprint(an_event())


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant_id": "other"},
        {"customer_id": "bob"},
        {"occurred_at": NOON + timedelta(microseconds=1)},
        {"items": (an_item(2),)},
        {"items": (an_item(model="x"),)},
        {"items": (an_item(provider="x"),)},
        {"items": (an_item(category="x"),)},
        {"items": (an_item(unit="x"),)},
        {"items": (an_item(), an_item())},
    ],
)
def test_every_fact_that_is_charged_for_matters(changes: dict[str, Any]) -> None:
    changed = an_event(*changes.pop("items", ()), **changes)

    assert fingerprint(changed) != fingerprint(an_event())
    assert len(fingerprint(changed)) == FINGERPRINT_BYTES


@given(some_items, some_items)
def test_two_events_have_one_fingerprint_only_if_they_say_the_same(one: list[Item], other: list[Item]) -> None:
    """Whatever characters names hold."""

    def said(used: list[Item]) -> list[tuple[Any, ...]]:
        return sorted((i.category, i.provider, i.model, i.unit, i.quantity) for i in used)

    same = fingerprint(an_event(*one)) == fingerprint(an_event(*other))

    assert same == (said(one) == said(other))


@pytest.mark.parametrize("separator", ["\x1f", "\x1e", "\x1d", "\n", "|"])
def test_a_separator_in_a_name_forges_nothing(separator: str) -> None:
    split = an_item(category="a", provider=f"b{separator}c", model="d")
    shifted = an_item(category=f"a{separator}b", provider="c", model="d")
    ids = {"tenant_id": f"a{separator}b", "customer_id": "c"}, {"tenant_id": "a", "customer_id": f"b{separator}c"}

    assert fingerprint(an_event(split)) != fingerprint(an_event(shifted))
    assert fingerprint(an_event(**ids[0])) != fingerprint(an_event(**ids[1]))
