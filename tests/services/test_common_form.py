"""What the short way reads, the contract reads to the very same values; and it does read what nearly all send."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.errors import EventMalformed
from billing.events import Event
from centavo import Item, UsageEvent
from db.usage import CONTEXT_COLUMNS
from services.metering import common_form
from services.metering.envelopes import read_by_contract

FIELDS = ("tenant_id", "customer_id", "key", "occurred_at", "metadata", *CONTEXT_COLUMNS)
OF_AN_ITEM = ("category", "provider", "model", "unit")

PLAIN = {
    "tenant_id": "acme",
    "customer_id": "ana",
    "key": "k",
    "occurred_at": "2026-11-20T15:04:05Z",
    "items": [dict.fromkeys(OF_AN_ITEM, "x") | {"quantity": "1"}],
}

long_numbers = st.integers(-(10**45), 10**45) | st.floats(allow_nan=False, allow_infinity=False)
anything = st.none() | st.booleans() | st.integers() | long_numbers | st.text(max_size=5)
names = st.sampled_from(["acme", "x" * 64, "x" * 65, "y" * 128, "y" * 129, "z" * 255, "z" * 256, "", "é" * 64, "\0"])
digits = st.text(st.sampled_from("0123456789"), min_size=1, max_size=32)
quantities = (
    digits
    | st.tuples(digits, st.sampled_from([".", ",", "e", "_", "-"]), digits).map("".join)
    | st.sampled_from(["007", "1.50", "-1", "+1", " 1", "1 ", "1_0", "NaN", "Infinity", "\u0663", "²", "", "1.", ".5"])
    | st.integers(0, 10**19)
    | st.floats(0, 1e9)
)
moments = st.sampled_from(
    [
        "2026-11-20T15:04:05.123456Z",
        "2026-11-20T15:04:05.123456789Z",
        "2026-11-20T15:04:05.9999999Z",
        "2026-11-20T15:04:05+00:00",
        "2026-11-20T15:04:05-03:00",
        "2026-11-20T15:04Z",
        "2026-11-20 15:04:05Z",
        "2026-11-20t15:04:05z",
        "20261120T150405Z",
        "2026-W47-5T15:04:05Z",
        "2026-11-20T15:04:05",
        "2026-11-20T24:00:00Z",
        "0001-01-01T00:00:00Z",
        "2026-11-20",
        "yesterday",
    ]
)
metadata = st.none() | st.dictionaries(
    st.text(max_size=8), st.recursive(anything, lambda inner: st.lists(inner, max_size=3), max_leaves=5), max_size=3
)
items = st.lists(
    st.fixed_dictionaries(
        dict.fromkeys(OF_AN_ITEM, st.just("llm") | names) | {"quantity": quantities},
        optional={"price": anything},
    ),
    max_size=3,
)
said = st.fixed_dictionaries(
    {
        "tenant_id": st.just("acme") | names | anything,
        "customer_id": st.just("ana") | names,
        "key": st.just("k") | names,
        "occurred_at": moments | anything,
        "items": items | anything,
    },
    optional={"metadata": metadata, "usage": anything} | dict.fromkeys(CONTEXT_COLUMNS, names | anything),
)


def values(event: Event) -> list[Any]:
    """All that an event says; numbers with their digits, so that 1.50 is not 1.5."""
    fields = [getattr(event, name) for name in FIELDS]
    return fields + [[*(getattr(item, name) for name in OF_AN_ITEM), str(item.quantity)] for item in event.items]


@settings(max_examples=600)
@given(event=said, is_ascii=st.booleans())
def test_the_short_way_reads_nothing_else_than_the_contract(event: dict[str, Any], is_ascii: bool) -> None:
    raw = json.dumps(event, ensure_ascii=is_ascii).encode()

    read = common_form.read(raw)

    if read is not None:
        assert values(read) == values(read_by_contract(raw))


@given(
    quantity=st.integers(0, 10**18 - 1).map(Decimal) | st.decimals(0, 10**6, places=6),
    occurred_at=st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    context=st.dictionaries(st.sampled_from(CONTEXT_COLUMNS), st.just("x") | st.none()),
    metadata=st.none() | st.just({"a": [1, None, "b"]}),
)
def test_what_the_sdk_sends_goes_the_short_way(
    quantity: Decimal, occurred_at: datetime, context: dict[str, str | None], metadata: dict[str, Any] | None
) -> None:
    item = Item(category="stt", provider="openai", model="whisper-1", unit="second", quantity=quantity)
    event = UsageEvent(
        tenant_id="acme", customer_id="ana", occurred_at=occurred_at, items=(item,), metadata=metadata, **context
    )

    read = common_form.read(event.to_wire())

    assert read is not None
    assert values(read) == values(event)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"null", b"{", b'{"key":"\xff"}', b'{"a":' * 2000])
def test_what_is_no_event_is_left_to_the_contract_to_refuse(raw: bytes) -> None:
    assert common_form.read(raw) is None
    with pytest.raises(EventMalformed):
        read_by_contract(raw)


@pytest.mark.parametrize("depth", [1, 100, 190, 210, 254, 256, 400])
def test_metadata_as_deep_as_the_contract_takes(depth: int) -> None:
    raw = (json.dumps(PLAIN)[:-1] + ',"metadata":' + '{"a":' * depth + "1" + "}" * depth + "}").encode()

    read = common_form.read(raw)

    assert (read is not None) == (depth < 200)
    if read is not None:
        assert values(read) == values(read_by_contract(raw))


def test_fractions_in_metadata_keep_their_digits() -> None:
    raw = json.dumps(PLAIN)[:-1] + ',"metadata":{"rate":0.1000000000000000000000001}}'

    read = common_form.read(raw.encode())

    assert read is not None
    assert read.metadata == {"rate": Decimal("0.1000000000000000000000001")}


@pytest.mark.parametrize("around", ["%s", '[{"b":%s}]', '{"c":[1,%s]}'])
@pytest.mark.parametrize("number", ["1e5000", "1e131071", "-1E+40", "9" * 41, "1e-40", "0e131071", "0." + "0" * 40])
def test_numbers_that_are_long_when_written_out_are_refused_on_either_way(number: str, around: str) -> None:
    raw = (json.dumps(PLAIN)[:-1] + f',"metadata":{{"x":7,"a":{around % number}}}}}').encode()

    assert common_form.read(raw) is None
    with pytest.raises(EventMalformed, match="more than 40 digits when it is written out"):
        read_by_contract(raw)


@pytest.mark.parametrize("around", ["%s", '[{"b":%s}]', '{"c":[1,%s]}'])
@pytest.mark.parametrize("number", ["9" * 40, "-" + "9" * 40, "0." + "0" * 38, "-1.5", "1e39", "-1E+39", "1e-39"])
def test_numbers_of_40_digits_are_read_on_either_way(number: str, around: str) -> None:
    """Those with an exponent by the contract alone."""
    raw = (json.dumps(PLAIN)[:-1] + f',"metadata":{{"x":7,"a":{around % number}}}}}').encode()

    contract, read = read_by_contract(raw), common_form.read(raw)

    assert contract.metadata == json.loads(f'{{"x":7,"a":{around % number}}}', parse_float=Decimal)
    assert (read is None) == ("e" in number.lower())
    if read is not None:
        assert values(read) == values(contract)
