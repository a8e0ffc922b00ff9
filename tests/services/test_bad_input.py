"""Bad input: it is parked once, with a reason a person understands, and nobody else suffers."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import psycopg
import pytest

from config.settings import settings
from services.metering.parked import replay
from services.metering.redelivery import record_in_parts
from services.metering.usage import Outcome, record_usage
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, parked_reasons, rows, wallet

pytestmark = pytest.mark.usefixtures("billing_database")

NUL, LONE_SURROGATE = r"\u0000", r"\ud800"
DEEP = 5_000


class Kept(NamedTuple):
    """A parked input, as a person sees it."""

    reason: str
    detail: str
    key: str | None
    times_seen: int
    raw: bytes


def now() -> datetime:
    return datetime.now(UTC)


def kept() -> list[Kept]:
    statement = "SELECT reason, detail, key, times_seen, raw FROM parked_inputs WHERE replayed_at IS NULL"
    return [Kept(*row) for row in rows(statement)]


def an_item(quantity: str = '"5"', **fields: str) -> str:
    """An item as JSON text; the quantity is JSON text too."""
    said = {"category": "llm_prompt", "provider": "openai", "model": "gpt-4", "unit": "token", **fields}
    return json.dumps(said)[:-1] + f',"quantity":{quantity}}}'


def written(*, quantity: str = '"5"', more: str = "", **fields: Any) -> bytes:
    """An event as JSON text, with anything in it; `more` is JSON text of further members."""
    said = {"tenant_id": TENANT, "customer_id": "ana", "key": "bad", "occurred_at": now().isoformat(), **fields}
    said = {name: value for name, value in said.items() if value is not None}
    return (json.dumps(said)[:-1] + f',"items":[{an_item(quantity)}]{more}}}').encode()


MALFORMED: dict[str, tuple[bytes, str]] = {
    "quantity negative": (written(quantity='"-1"'), "items.0.quantity: Input should be greater than or equal to 0"),
    "quantity NaN": (written(quantity="NaN"), "not JSON that can be read"),
    "quantity NaN as text": (written(quantity='"NaN"'), "plain decimal number such as 45.5 (got 'NaN')"),
    "quantity Infinity": (written(quantity="-Infinity"), "not JSON that can be read"),
    "quantity 1e400": (written(quantity="1e400"), "no more than 30 digits in total (got 1E+400)"),
    "quantity 1e400 as text": (written(quantity='"1e400"'), "no more than 30 digits in total (got '1e400')"),
    "quantity 1e-400": (written(quantity="1e-400"), "(got 1E-400)"),
    "quantity with an absurd exponent": (written(quantity="1e99999999999999999999"), "exponent"),
    "quantity with 40 digits": (written(quantity="9" * 40), "no more than 30 digits in total (got 999"),
    "quantity with 40 digits as text": (written(quantity=f'"{"9" * 40}"'), "no more than 30 digits"),
    "quantity with 6,000 digits": (written(quantity="9" * 6000), "Integer value out of range"),
    "quantity true": (written(quantity="true"), "items.0.quantity: "),
    "quantity null": (written(quantity="null"), "items.0.quantity: "),
    "quantity an object": (written(quantity="{}"), "items.0.quantity: "),
    "key empty": (written(key=""), "key: String should have at least 1 character (got '')"),
    "key of 10,000 characters": (written(key="k" * 10_000), "key: String should have at most 255 characters"),
    "key with NUL": (written(key="a\x00b"), r"key: String should match pattern '^[^\x00]*$' (got 'a\x00b')"),
    "key a number": (written(key=7), "key: Input should be a valid string (got 7)"),
    "key with half a character": (written(more=f',"reference":"{LONE_SURROGATE}"'), "not JSON that can be read"),
    "bytes that are no UTF-8": (written().replace(b'"bad"', b'"\xff"'), "not JSON that can be read: 'utf-8'"),
    "no customer": (written(customer_id=None), "customer_id: Field required"),
    "time without a zone": (written(occurred_at="2026-11-20T12:00:00"), "occurred_at: Input should have timezone info"),
    "time that is none": (written(occurred_at="yesterday"), "occurred_at: "),
    "time before the calendar": (written(occurred_at="0001-01-01T00:00:00+14:00"), "no place in the UTC calendar"),
    "time after the calendar": (written(occurred_at="9999-12-31T23:59:59-14:00"), "no place in the UTC calendar"),
    "metadata of 100 KB": (written(metadata={"a": "x" * 100_000}), "metadata takes 100008 bytes as JSON; at most"),
    "an event of 1 MB": (
        written(metadata={"a": "x" * 1_000_000}),
        ' bytes; at most 524288 are read (got \'{"tenant_id"',
    ),
    "metadata with NUL": (written(more=f',"metadata":{{"a":"{NUL}"}}'), "NUL character, which no database text"),
    "metadata with half a character": (written(more=f',"metadata":{{"a":"{LONE_SURROGATE}"}}'), "not JSON"),
    "metadata too deep": (written(more=f',"metadata":{{"a":{"[" * 300}{"]" * 300}}}'), "metadata: "),
    "nested deeper than can be read": (written(more=f',"metadata":{"[" * DEEP}{"]" * DEEP}'), "not JSON that can"),
    "an unknown field": (written(price="0"), "price: Extra inputs are not permitted (got '0')"),
    "a field named NUL": (written(more=f',"{NUL}":1'), r"\x00: Extra inputs are not permitted (got 1)"),
    "a field named by half a character": (written(more=f',"{LONE_SURROGATE}":1'), "not JSON that can be read"),
    "a field with a name of 100,000 characters": (written(more=f',"{"x" * 100_000}":1'), "xxxx"),
    "no items": (written().replace(an_item().encode(), b""), "items: Tuple should have at least 1 item"),
    "text": (b'"an event"', "an event is a JSON object, not 'an event'"),
    "null": (b"null", "an event is a JSON object, not None"),
    "a number": (b"17", "an event is a JSON object, not 17"),
    "a list": (b"[1,2]", "an event is a JSON object, not [1, 2]"),
    "deep nesting and nothing else": (b"[" * DEEP + b"]" * DEEP, "not JSON that can be read"),
    "a syntax error": (b'{"tenant_id": acme}', "not JSON that can be read"),
}


@pytest.mark.parametrize(("bad", "said"), MALFORMED.values(), ids=MALFORMED)
def test_one_malformed_event_is_parked_and_the_others_are_charged(bad: bytes, said: str) -> None:
    """It is parked once however often it comes, with its bytes and a reason to read."""
    catalogues()
    a_customer("ana", credit="10")
    envelope = an_envelope(an_event("ana", key="good 1"), bad, an_event("ana", key="good 2"))

    outcomes = [record_usage(envelope, now()) for _ in range(3)]

    assert outcomes == [
        Outcome(received=3, charged=2, parked=1),
        Outcome(received=3, duplicates=2),
        Outcome(received=3, duplicates=2),
    ]
    (parked,) = kept()
    assert (parked.reason, parked.times_seen, parked.raw) == ("event_malformed", 3, bad)
    assert said in parked.detail
    assert len(parked.detail) < 2100
    assert wallet("ana") == Decimal("9.94")


COMPRESSED = an_envelope(*[written(key=str(number)) for number in range(20)])
MALFORMED_WHOLE: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"hello", "an envelope is a JSON object, not 'hello'"),
    "JSON that ends early": (b'{"v":1,"events":[' + written(), "the envelope is not JSON: Input data was truncated"),
    "JSON with more behind it": (an_envelope(b"1") + b"}", "the envelope is not JSON: "),
    "a quote is missing": (an_envelope(written().replace(b'"bad"', b'"bad')), "the envelope is not JSON: "),
    "no bytes": (b"", "an envelope is a JSON object, not ''"),
    "a list": (b"[1]", "an envelope is a JSON object, not '[1]'"),
    "text": (b'"events"', "an envelope is a JSON object, not "),
    "null": (b"null", "an envelope is a JSON object, not 'null'"),
    "nesting alone": (b"[" * DEEP + b"]" * DEEP, "an envelope is a JSON object, not '[[["),
    "no version": (b'{"events":[' + written() + b"]}", 'an envelope has "v" and a list of "events"'),
    "no events": (b'{"v":1}', 'an envelope has "v" and a list of "events"'),
    "events not a list": (b'{"v":1,"events":{}}', 'an envelope has "v" and a list of "events"'),
    "events null": (b'{"v":1,"events":null}', 'an envelope has "v" and a list of "events"'),
    "empty": (an_envelope(), "the envelope holds no events"),
    "version 2": (b'{"v":2,"events":[' + written() + b"]}", "version 2 is not known here; this worker reads 1"),
    "version as text": (b'{"v":"1","events":[' + written() + b"]}", "version '1' is not known here"),
    "version true": (b'{"v":true,"events":[' + written() + b"]}", "version True is not known here"),
    "compressed, and not": (b"zlib:AAAA", "compressed envelope"),
    "compressed, and not Base64": (b"zlib:{}", "compressed envelope"),
    "compressed and cut off": (COMPRESSED[:-40], "compressed envelope"),
    "two lists of events": (
        b'{"v":1,"events":[' + written(key="a") + b'],"events":[' + written(key="b") + b"]}",
        'the envelope says "events" twice',
    ),
    "two lists of events, one of them spelled otherwise": (
        b'{"v":1,"events":[' + written(key="a") + b'],"\\u0065vents":[' + written(key="b") + b"]}",
        'the envelope says "events" twice',
    ),
}


@pytest.mark.parametrize(("bad", "said"), MALFORMED_WHOLE.values(), ids=MALFORMED_WHOLE)
def test_what_is_no_envelope_is_parked_as_it_came(bad: bytes, said: str) -> None:
    """Once, however often it comes; nothing of it is charged."""
    catalogues()
    a_customer("ana", credit="10")

    outcomes = [record_usage(bad, now()) for _ in range(2)]

    assert outcomes == [Outcome(received=1, parked=1), Outcome(received=1)]
    (parked,) = kept()
    assert (parked.reason, parked.times_seen, parked.raw) == ("envelope_malformed", 2, bad)
    assert said in parked.detail
    assert wallet("ana") == Decimal(10)


def test_an_envelope_above_the_bound_is_parked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is a setting, and holds for what a compressed envelope inflates to."""
    catalogues()
    a_customer("ana", credit="10")
    monkeypatch.setenv("CENTAVO_ENVELOPE_BYTES_MAX", "1024")
    settings.cache_clear()
    envelope = an_envelope(*[an_event("ana") for _ in range(10)])

    outcome = record_usage(envelope, now())

    assert outcome == Outcome(received=1, parked=1)
    assert [(k.reason, k.detail) for k in kept()] == [
        ("envelope_malformed", "the compressed envelope holds more than 1024 bytes")
    ]
    assert wallet("ana") == Decimal(10)


def test_one_bad_event_among_499_good_ones() -> None:
    """Exactly one is parked, and 499 are charged."""
    catalogues()
    a_customer("ana", credit="100")
    events: list[Any] = [an_event("ana") for _ in range(499)]

    outcome = record_usage(an_envelope(*events[:250], written(quantity="-1"), *events[250:]), now())

    assert outcome == Outcome(received=500, charged=499, parked=1)
    assert wallet("ana") == Decimal("85.03")


def test_an_envelope_of_100_000_events_is_charged_whole() -> None:
    """In slices, a transaction each; a second delivery finds all of them charged."""
    catalogues()
    a_customer("ana", credit="1000")
    template = written(key="KEY", quantity='"10"')
    envelope = an_envelope(*[template.replace(b"KEY", b"%d" % number) for number in range(100_000)])

    outcome = record_usage(envelope, now())

    assert outcome == Outcome(received=100_000, charged=100_000)
    assert wallet("ana") == Decimal(970)
    assert one("SELECT tokens, events FROM periods") == (1_000_000, 100_000)


IMPLAUSIBLE: dict[str, tuple[dict[str, Any], str, str]] = {
    "10^15 tokens": ({"quantity": "1000000000000000"}, "implausible", "quantity 1000000000000000 is above 100000000"),
    "half a token": ({"quantity": '"0.5"'}, "implausible", "quantity 0.5: tokens are counted whole"),
    "year 1": ({"occurred_at": "0001-01-01T00:00:00Z"}, "too_old", "0001-01-01T00:00:00+00:00 is older than 35 days"),
    "year 9999": ({"occurred_at": "9999-12-31T23:59:59Z"}, "implausible", "9999-12-31T23:59:59+00:00 is more than"),
    "two hours ahead": (
        {"occurred_at": (now() + timedelta(hours=2)).isoformat()},
        "implausible",
        "more than 1:00:00 ahead of now",
    ),
    "36 days ago": ({"occurred_at": (now() - timedelta(days=36)).isoformat()}, "too_old", "is older than 35 days"),
}


@pytest.mark.parametrize("time_zone", ["America/Sao_Paulo", "Pacific/Kiritimati"])
@pytest.mark.parametrize(("fields", "reason", "said"), IMPLAUSIBLE.values(), ids=IMPLAUSIBLE)
def test_an_event_beyond_the_bounds_waits_for_a_person(
    fields: dict[str, Any], reason: str, said: str, time_zone: str
) -> None:
    """It owns its key and is not charged; the others are, and a second delivery changes nothing."""
    catalogues()
    a_customer("ana", credit="10", time_zone=time_zone)
    envelope = an_envelope(an_event("ana"), written(**fields), an_event("ana"))

    outcomes = [record_usage(envelope, now()) for _ in range(2)]

    assert outcomes == [Outcome(received=3, charged=2, parked=1), Outcome(received=3, duplicates=3)]
    found = rows("SELECT key, park_reason, park_detail FROM usage_events WHERE status = 'parked'")
    assert [(key, why) for key, why, _ in found] == [("bad", reason)]
    assert said in found[0][2]
    assert kept() == []
    assert wallet("ana") == Decimal("9.94")


def test_an_unknown_model_waits_for_its_price() -> None:
    """It is parked as unpriced, once, and the reason names the product."""
    catalogues()
    a_customer("ana", credit="10")
    envelope = an_envelope(an_event("ana"), an_event("ana", [tokens(5, model="gpt-99")], key="bad"))

    outcomes = [record_usage(envelope, now()) for _ in range(2)]

    assert outcomes == [Outcome(received=2, charged=1, parked=1), Outcome(received=2, duplicates=2)]
    assert rows("SELECT key, park_reason, park_detail FROM usage_events WHERE status = 'parked'") == [
        ("bad", "unpriced", "items[0] llm_prompt/openai/gpt-99/token has no price at its time")
    ]
    assert wallet("ana") == Decimal("9.97")


@pytest.mark.parametrize(
    ("fields", "reason", "said"),
    [
        ({"customer_id": "nobody"}, "unknown_customer", "tenant has no customer 'nobody'"),
        ({"tenant_id": "nowhere"}, "unknown_tenant", "there is no tenant 'nowhere'"),
    ],
    ids=["unknown customer", "unknown tenant"],
)
def test_an_event_of_nobody_is_kept(fields: dict[str, Any], reason: str, said: str) -> None:
    """Once, with the name that is not known; the others are charged."""
    catalogues()
    a_customer("ana", credit="10")
    bad = written(**fields)
    envelope = an_envelope(an_event("ana"), bad)

    outcomes = [record_usage(envelope, now()) for _ in range(3)]

    assert outcomes[0] == Outcome(received=2, charged=1, parked=1)
    assert outcomes[1:] == [Outcome(received=2, duplicates=1)] * 2
    assert kept() == [Kept(reason, said, "bad", 3, bad)]
    assert wallet("ana") == Decimal("9.97")


def test_a_key_used_twice_in_one_envelope_charges_the_first() -> None:
    """The same payload again is a duplicate, another payload a conflict that is kept."""
    catalogues()
    a_customer("ana", credit="10")
    first, other = an_event("ana", key="k"), an_event("ana", [tokens(9999)], key="k")

    outcome = record_usage(an_envelope(first, first, other), now())

    assert outcome == Outcome(received=3, charged=1, duplicates=1, parked=1, conflicts=1)
    assert [(k.reason, k.detail, k.key) for k in kept()] == [
        ("key_conflict", "key 'k' was used before with another payload; the first one stands", "k")
    ]
    assert wallet("ana") == Decimal("9.97")


def test_what_is_recorded_owns_its_key_whatever_comes_first_in_an_envelope() -> None:
    """Behind another payload of its key, the recorded one is still a duplicate, and not kept as a conflict."""
    catalogues()
    a_customer("ana", credit="10")
    recorded, other = an_event("ana", key="k"), an_event("ana", [tokens(9999)], key="k")
    record_usage(an_envelope(recorded), now())

    outcome = record_usage(an_envelope(other, recorded, other), now())

    assert outcome == Outcome(received=3, duplicates=1, parked=1, conflicts=2)
    assert [(k.reason, k.key, k.raw) for k in kept()] == [("key_conflict", "k", other.to_wire())]
    assert wallet("ana") == Decimal("9.97")


def test_an_event_of_a_stranger_takes_no_key_from_a_customer() -> None:
    """A key that nothing was recorded under is free, also within one envelope."""
    catalogues()
    a_customer("ana", credit="10")

    outcome = record_usage(an_envelope(an_event("nobody", key="k"), an_event("ana", key="k")), now())

    assert outcome == Outcome(received=2, charged=1, parked=1)
    assert [(k.reason, k.key) for k in kept()] == [("unknown_customer", "k")]
    assert wallet("ana") == Decimal("9.97")


def test_the_last_of_two_fields_of_one_name_counts_on_either_way() -> None:
    """As every JSON parser has it; also in an envelope that had to be cut by hand, so it is the same event."""
    catalogues()
    a_customer("ana", credit="10")
    twice = written().replace(b'"quantity":"5"', b'"quantity":"5","quantity":"1000"')

    plain = record_usage(an_envelope(twice), now())
    by_hand = record_usage(an_envelope(twice, b"NaN"), now())

    assert plain == Outcome(received=1, charged=1)
    assert by_hand == Outcome(received=2, duplicates=1, parked=1)
    assert wallet("ana") == Decimal("9.97")


def test_text_in_an_event_is_never_read_as_an_event() -> None:
    """Also where a missing quote turns strings inside out."""
    catalogues()
    a_customer("ana", credit="10")
    hidden = json.dumps(f"x],{written(key='hidden').decode()},[")
    broken = written(more=f',"reference":{hidden}').replace(b'"key": "bad"', b'"key": bad"')

    outcome = record_usage(an_envelope(broken), now())

    assert outcome == Outcome(received=1, parked=1)
    assert parked_reasons() == {"envelope_malformed": 1}
    assert wallet("ana") == Decimal(10)


def test_metadata_is_kept_as_it_was_said() -> None:
    """Numbers stay numbers."""
    catalogues()
    a_customer("ana", credit="10")

    record_usage(an_envelope(written(metadata={"temperature": 0.7, "n": 3, "text": "0.7"})), now())

    assert one("SELECT metadata FROM usage_events") == ({"temperature": 0.7, "n": 3, "text": "0.7"},)


def test_an_event_that_postgres_refuses_is_parked_and_the_others_are_charged() -> None:
    """Envelopes that fail as a whole are halved down to the event that can't be recorded."""
    catalogues()
    a_customer("ana", credit="10")
    with psycopg.connect(settings().required("database_url")) as connection:
        connection.execute("ALTER TABLE usage_events ADD CONSTRAINT no_bad CHECK (key <> 'bad')")
    bad = written()
    envelope = an_envelope(*[an_event("ana") for _ in range(5)], bad, an_event("ana"))

    outcomes = [record_in_parts(envelope, now()) for _ in range(2)]

    assert [(o.charged, o.duplicates, o.parked) for o in outcomes] == [(6, 0, 1), (0, 6, 0)]
    assert [(k.reason, k.key, k.times_seen) for k in kept()] == [("unrecordable", "bad", 2)]
    assert wallet("ana") == Decimal("9.82")


def test_however_much_is_malformed_what_is_good_is_charged() -> None:
    """In transactions of a bounded size: one of all could take longer than a transaction may, for ever."""
    catalogues()
    a_customer("ana", credit="10")
    most = settings().envelope_slice_events
    bad = [b'{"no":%d}' % number for number in range(2 * most + 1)]

    outcome = record_usage(an_envelope(an_event("ana"), *bad, an_event("ana")), now())

    assert outcome == Outcome(received=2 * most + 3, charged=2, parked=2 * most + 1)
    assert rows("SELECT count(*) FROM parked_inputs GROUP BY xmin ORDER BY 1") == [(1,), (most,), (most,)]


def test_what_would_begin_a_hundred_tiers_and_more_at_once_waits_for_a_person() -> None:
    """Of a customer together: a plan whose size was meant in millions makes a payment of every event."""
    catalogues()
    for name in ("ana", "bob"):
        a_customer(name, plan="tiers-8m", currencies=("BRL",))
    much = [an_event("ana", [tokens(90_000_000)], key=f"ana{number:02}") for number in range(10)]

    outcome = record_usage(an_envelope(*much, an_event("bob", [tokens(90_000_000)])), now())

    assert (outcome.charged, outcome.parked) == (9, 2)
    assert rows("SELECT key, park_reason FROM usage_events WHERE status = 'parked' ORDER BY key") == [
        ("ana08", "implausible"),
        ("ana09", "implausible"),
    ]
    assert replay("event:acme/ana08", now()).charged == 1
