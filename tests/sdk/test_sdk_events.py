"""The wire contract: what goes out comes back the same."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from centavo import Item, UsageEvent
from centavo.events import METADATA_DIGITS_MAX
from tests.sdk.support import event


def texts(longest: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=longest)


quantities = st.decimals(min_value=0, max_value=Decimal("999999999999999999.999999999999"), places=12) | st.integers(
    min_value=0, max_value=10**17
).map(Decimal)
items = st.builds(Item, category=texts(64), provider=texts(64), model=texts(128), unit=texts(64), quantity=quantities)
moments = st.datetimes(
    min_value=datetime(1, 1, 2),  # noqa: DTZ001 - the strategy adds the zone
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.integers(-840, 840).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
documents = st.dictionaries(
    texts(10), st.recursive(st.none() | st.booleans() | st.integers() | texts(10), st.lists, max_leaves=5), max_size=4
)
events = st.builds(
    UsageEvent,
    tenant_id=texts(64),
    customer_id=texts(128),
    key=texts(255),
    occurred_at=moments,
    items=st.lists(items, min_size=1, max_size=5).map(tuple),
    user_id=st.none() | texts(128),
    message_id=st.none() | texts(128),
    service_type=st.none() | texts(64),
    reference=st.none() | texts(255),
    metadata=st.none() | documents,
)


@given(original=events)
def test_an_event_survives_the_wire(original: UsageEvent) -> None:
    decoded = json.loads(original.to_wire(), parse_float=Decimal)

    assert original == UsageEvent.from_wire(decoded)


def test_absent_fields_are_left_out_of_the_wire() -> None:
    assert list(json.loads(event().to_wire())) == ["tenant_id", "customer_id", "key", "occurred_at", "items"]


def test_metadata_that_is_not_a_number_never_spoils_the_json_around_it() -> None:
    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is not JSON")

    wire = event(metadata={"ratio": float("nan"), "limit": float("inf")}).to_wire()

    assert json.loads(wire, parse_constant=refuse)["metadata"] == {"ratio": None, "limit": None}


def test_one_message_makes_one_event_for_each_customer() -> None:
    fields: dict[str, Any] = {"tenant_id": "acme", "items": event().items, "occurred_at": datetime.now(UTC)}
    first = UsageEvent.for_message(message_id="m-1", customer_id="c-1", **fields)

    assert first == UsageEvent.for_message(message_id="m-1", customer_id="c-1", **fields)
    assert first.key != UsageEvent.for_message(message_id="m-1", customer_id="c-2", **fields).key
    assert first.key != UsageEvent.for_message(message_id="m-2", customer_id="c-1", **fields).key


def test_customer_and_message_cannot_be_confused_in_a_key() -> None:
    fields: dict[str, Any] = {"tenant_id": "acme", "items": event().items}

    one = UsageEvent.for_message(message_id="2:x", customer_id="c", **fields)
    other = UsageEvent.for_message(message_id="x", customer_id="c:2", **fields)

    assert one.key != other.key


@pytest.mark.parametrize("quantity", ["NaN", "1e400", "-1", "1" * 31, "0.0000000000001", " 1", "1_000", "٣", "", True])
def test_quantities_beyond_the_grammar_are_refused(quantity: object) -> None:
    with pytest.raises(ValueError, match="quantity"):
        Item(category="c", provider="p", model="m", unit="u", quantity=quantity)


class Answered(BaseModel):
    """What an application may put into metadata as it is."""

    tokens: int


NUMBERS = (
    st.integers(-(10**45), 10**45)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.builds(
        lambda digits, exponent: Decimal(digits).scaleb(exponent),
        st.integers(-(10**30), 10**30),
        st.integers(-5000, 5000),
    )
)


@given(number=NUMBERS)
@example(number=Decimal("1e131071"))
@example(number=Decimal("0e131071"))
@example(number=Decimal("1e-131071"))
@example(number=10**39)
@example(number=10**40)
@example(number=1e300)
@example(number=5e-324)
@example(number=0.1)
def test_numbers_in_metadata_are_bounded_by_what_they_take_written_out(number: float | Decimal) -> None:
    """Not by what they take on the wire: whoever reads them later has all their digits."""
    is_long = sum(map(str.isdigit, format(Decimal(str(number)), "f"))) > METADATA_DIGITS_MAX
    if Decimal(str(number)).is_zero() and "E+" in str(number):
        is_long = True

    if not is_long:
        assert event(metadata={"a": [{"b": number}]}).metadata == {"a": [{"b": number}]}
        return
    with pytest.raises(ValidationError, match="more than 40 digits when it is written out"):
        event(metadata={"a": [{"b": number}]})


@pytest.mark.parametrize("value", [Answered(tokens=10**50), {10**50}, (1, (10**50,))])
def test_a_long_number_is_found_wherever_it_goes_on_the_wire_from(value: object) -> None:
    with pytest.raises(ValidationError, match="more than 40 digits"):
        event(metadata={"a": value})
