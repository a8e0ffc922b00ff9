"""`usage void` and `usage rerate`, as a person uses them."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from services.metering.recording import record_one
from services.metering.usage import record_usage
from tests.cli.conftest import Command
from tests.factories import a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, wallet

GPT_4 = {"category": "llm_prompt", "provider": "openai", "model": "gpt-4", "unit": "token", "unit_price": "0.001"}


@pytest.fixture
def month(ana: str) -> str:
    """The month in which ana has used 1000 tokens for 0.03, and an unknown model nothing of."""
    now = datetime.now(UTC)
    occurred_at = now - timedelta(minutes=1)
    record_usage(an_envelope(an_event(ana, [tokens(1000)], key="k", occurred_at=occurred_at)), now)
    starts_at, ends_at = one("SELECT starts_at, ends_at FROM periods p JOIN usage_events ON period_start = starts_at")
    middle: datetime = starts_at + (ends_at - starts_at) / 2
    return f"{middle:%Y-%m}"


def test_an_event_is_voided_once_and_says_so(centavo: Command, ana: str, month: str) -> None:
    first = centavo("usage", "void", "acme", "k", "--reason", "a mistake")
    again = centavo("usage", "void", "acme", "k", "--reason", "again")
    nobody = centavo("usage", "void", "acme", "nobody", "--reason", "a mistake")

    assert first == (0, "event k of customer ana is voided: it took USD 0.03 and 1,000 tokens\n", "")
    assert again.out.startswith("event k was voided before, at 2")
    assert again.out.endswith(": a mistake\n")
    assert (nobody.status, nobody.out) == (1, "")
    assert "There is no such usage event" in nobody.err
    assert wallet(ana) == 10


def test_what_became_of_tiers_is_told(centavo: Command, billing_database: str) -> None:
    catalogues()
    a_customer("rui", plan="tiers-8m", currencies=("BRL",))
    record_usage(an_envelope(an_event("rui", [tokens(16_000_001)], key="k")), datetime.now(UTC))

    voided = centavo("usage", "void", "acme", "k", "--reason", "a mistake")
    as_json = centavo("usage", "void", "acme", "k", "--reason", "a mistake", "--json").json

    assert voided.out.splitlines() == [
        "event k of customer rui is voided: it took 16,000,001 tokens",
        "tiers that are owed no longer, not collected any more: 2",
    ]
    assert (as_json["tokens"], as_json["is_new"], as_json["reason"]) == (16_000_001, False, "a mistake")


def test_a_month_is_tried_and_then_corrected_once(centavo: Command, ana: str, month: str, tmp_path: Path) -> None:
    """A dry run says how to apply; the third run finds nothing."""
    path = tmp_path / "prices.json"
    starts = "2030-01-01T00:00:00Z"
    path.write_text(json.dumps({"currency": "USD", "effective_from": starts, "prices": [GPT_4]}))
    asked = ("usage", "rerate", "acme", "--month", month, "--prices", str(path))

    tried = centavo(*asked)
    assert wallet(ana) == 10 - one("SELECT cost FROM usage_events")[0]
    applied = centavo(*asked, "--apply", "--reason", "agreed")
    again = centavo(*asked, "--customer", "ana")

    lines = [line.split() for line in tried.out.splitlines()]
    assert ["ana", "1", "USD", "0.03", "1", "0.97"] in lines
    assert ["all", "1", "USD", "0.03", "1", "0.97"] in lines
    assert (
        tried.out.splitlines()[-1]
        == "nothing is written yet: 1 events would be corrected by the same command with --apply"
    )
    assert applied.out.splitlines()[-1] == "1 events corrected"
    assert again.out.splitlines()[-1] == "nothing differs"
    assert wallet(ana) == 9
    assert one("SELECT reason FROM ledger_entries WHERE kind = 'correction'") == ("agreed",)


def test_as_json_it_has_all_of_it(centavo: Command, ana: str, month: str) -> None:
    told = centavo("usage", "rerate", "acme", "--month", month, "--json").json

    same = {"currency": "USD", "old": "0.03", "new": "0.03", "difference": "0"}
    assert told == {
        "month": month,
        "is_applied": False,
        "customers": [{"customer_id": "ana", "events": 1, "changed": 0, "sums": [same], "unrated": {}}],
        "totals": [same],
    }


def test_a_month_without_usage_and_one_that_is_none(centavo: Command, ana: str) -> None:
    nothing = centavo("usage", "rerate", "acme", "--month", "2020-01")
    wrong = centavo("usage", "rerate", "acme", "--month", "January")

    assert nothing == (0, "nothing was used in that month\nnothing differs\n", "")
    assert (wrong.status, wrong.err) == (1, "centavo: 'January' is not a month; write it like 2026-10\n")


def test_what_was_deferred_is_settled_or_cancelled_and_tells_its_way(centavo: Command, ana: str) -> None:
    now = datetime.now(UTC)
    for key in ("k", "l"):
        event = an_event(ana, [tokens(1000)], key=key, occurred_at=now - timedelta(minutes=1))
        record_one(event, now, is_deferred=True)

    settled, again = (centavo("usage", "settle", "acme", "k") for _ in range(2))
    cancelled = centavo("usage", "cancel", "acme", "l", "--reason", "it failed")
    refused = centavo("usage", "settle", "acme", "l", "--force")
    way = centavo("usage", "trail", "acme", "l", "--json").json

    assert settled == (0, "event k of customer ana is charged: USD 0.03\n", "")
    assert again.out == "event k of customer ana was charged before: USD 0.03\n"
    assert cancelled.out == "event l of customer ana is cancelled\n"
    assert (refused.status, "event l is voided" in refused.err) == (1, True)
    assert [(one_["step"], one_["detail"]) for one_ in way] == [
        ("received", ""),
        ("deferred", "its caller settles it later"),
        ("cancelled", "it failed"),
    ]
    assert "deferred" in centavo("usage", "trail", "acme", "k").out
    assert wallet(ana) == Decimal("9.97")
