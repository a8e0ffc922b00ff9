"""`parked list`, `show` and `replay`, as a person uses them."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from centavo import UsageEvent
from services.metering.usage import record_usage
from tests.cli.conftest import Command
from tests.factories import an_envelope, an_event, tokens
from tests.looking import parked_reasons, wallet

GPT_99 = {"category": "llm_prompt", "provider": "openai", "model": "gpt-99", "unit": "token", "unit_price": "0.01"}


def park(*events: UsageEvent | bytes) -> None:
    assert record_usage(an_envelope(*events), datetime.now(UTC)).charged == 0


def test_an_unpriced_event_is_found_priced_and_charged(centavo: Command, ana: str, tmp_path: Path) -> None:
    """List, show, load a price, replay; once more does nothing."""
    park(an_event(ana, [tokens(100, model="gpt-99")], key="k"))
    prices = tmp_path / "prices.json"
    catalogue = {"currency": "USD", "effective_from": "2025-01-01T00:00:00Z", "prices": [GPT_99]}
    prices.write_text(json.dumps(catalogue))

    listed, shown = centavo("parked", "list"), centavo("parked", "show", "event:acme/k")
    before = centavo("parked", "replay", "--reason", "unpriced")
    loaded = centavo("prices", "load", str(prices))
    after = [centavo("parked", "replay", "--reason", "unpriced") for _ in range(2)]

    lines = listed.out.splitlines()
    assert lines[0] == "event:acme/k"
    assert lines[1].startswith("  unpriced, customer ana, since 2")
    assert lines[2] == "  items[0] llm_prompt/openai/gpt-99/token has no price at its time"
    assert shown.json["items"][0]["quantity"] == "100"
    assert shown.json["cost"] == "0"
    assert before == (0, "1 tried, 0 charged, 1 still parked\n", "")
    assert loaded.out == "1 prices added\n"
    assert after == [(0, "1 tried, 1 charged, 0 still parked\n", ""), (0, "0 tried, 0 charged, 0 still parked\n", "")]
    assert wallet(ana) == 9
    assert centavo("parked", "list", "--json").json == []


def test_a_strangers_event_is_charged_when_the_stranger_is_known(centavo: Command, ana: str) -> None:
    """By its reason, after `customers create`."""
    park(an_event("eva"))

    before = centavo("parked", "replay", "--all")
    centavo("customers", "create", "acme", "eva", "--plan", "prepaid", "--currency", "USD")
    after = centavo("parked", "replay", "--reason", "unknown_customer")

    assert before.out == "1 tried, 0 charged, 1 still parked\n"
    assert after.out == "1 tried, 1 charged, 0 still parked\n"
    assert str(wallet("eva")) == "-0.030000000000"


def test_what_a_person_must_look_at_goes_by_its_id(centavo: Command, ana: str) -> None:
    """Asked for by its reason, it says so; everything leaves it; its id releases it, once."""
    now = datetime.now(UTC)
    park(an_event(ana, key="old", occurred_at=now - timedelta(days=36)), an_event(ana, [tokens(10**9)], key="much"))

    by_reason = [centavo("parked", "replay", "--reason", reason) for reason in ("too_old", "implausible")]
    everything = centavo("parked", "replay", "--all")
    by_id = [centavo("parked", "replay", f"event:acme/{key}") for key in ("old", "much")]
    again = centavo("parked", "replay", "event:acme/old")

    assert [(result.status, result.out) for result in by_reason] == [(1, ""), (1, "")]
    assert all("`centavo parked replay ID`" in result.err for result in by_reason)
    assert everything.out == "0 tried, 0 charged, 0 still parked\n"
    assert [result.out for result in by_id] == ["1 tried, 1 charged, 0 still parked\n"] * 2
    assert (again.status, again.out) == (1, "")
    assert "Nothing is parked under this id" in again.err
    assert parked_reasons() == {}


def test_a_conflict_stays_and_says_why(centavo: Command, ana: str) -> None:
    """The first payload of a key stands, whatever is asked."""
    now = datetime.now(UTC)
    record_usage(an_envelope(an_event(ana, key="k")), now)
    park(an_event(ana, [tokens(7)], key="k"))
    (row,) = centavo("parked", "list", "--json").json

    by_reason = centavo("parked", "replay", "--reason", "key_conflict")
    by_id = centavo("parked", "replay", row["parked_id"])

    assert (by_reason.status, by_reason.out) == (1, "")
    assert "the first payload of its key stands" in by_reason.err
    assert by_id == (0, "1 tried, 0 charged, 1 still parked\n", "")
    assert parked_reasons() == {"key_conflict": 1}


def test_bytes_that_are_no_envelope_stay(centavo: Command, ana: str) -> None:
    """As they came, with a count; a replay of them is no error."""
    record_usage(b"\x80 no envelope", datetime.now(UTC))
    record_usage(b"\x80 no envelope", datetime.now(UTC))
    (row,) = centavo("parked", "list", "--json").json

    replayed = centavo("parked", "replay", row["parked_id"])
    shown = centavo("parked", "show", row["parked_id"])

    assert replayed == (0, "1 tried, 0 charged, 1 still parked\n", "")
    assert (shown.json["reason"], shown.json["times_seen"]) == ("envelope_malformed", 2)
    assert "seen 2 times" in centavo("parked", "list").out


def test_a_key_full_of_tricks_is_shown_as_it_is(centavo: Command, ana: str) -> None:
    """No markup, no emoji, no control character, no line of its own; and its id in one piece, to be copied."""
    key = "[red]:smile:[/]\x1b[31m\n" + "x" * 200
    park(an_event(ana, [tokens(1, model="gpt-99")], key=key))

    lines = centavo("parked", "list").out.splitlines()

    assert lines[0] == rf"event:acme/[red]:smile:[/]\x1b[31m\n{'x' * 200}"
    assert len(lines) == 3
    assert centavo("parked", "replay", f"event:acme/{key}").out == "1 tried, 0 charged, 1 still parked\n"


@pytest.mark.parametrize("arguments", [[], ["event:acme/k", "--all"], ["event:acme/k", "--reason", "unpriced"]])
def test_what_to_replay_must_be_clear(arguments: list[str], nowhere: Command) -> None:
    """One id, or a choice of many; not neither and not both."""
    result = nowhere("parked", "replay", *arguments)

    assert result == (1, "", "centavo: say what to replay: an id, or --reason, --tenant or --all\n")


def test_many_are_shown_up_to_a_limit(centavo: Command, ana: str) -> None:
    """And it says that there are more."""
    park(*(an_event(ana, [tokens(1, model="gpt-99")]) for _ in range(5)))

    result = centavo("parked", "list", "--limit", "3")

    assert len(result.out.splitlines()) == 10
    assert result.out.endswith("these are the oldest 3; --limit shows more\n")
