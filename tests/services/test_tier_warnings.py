"""Warnings at 80 and 100 percent of what the fee, and each tier, cover."""

from datetime import UTC, datetime, timedelta

import pytest

from config.settings import settings
from services.cycle.subscriptions import At, change_plan
from services.metering.usage import record_usage
from services.metering.voiding_usage import void
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import rows

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SAID = "SELECT split_part(detail, ' in the period', 1) FROM alerts WHERE kind = 'tier_threshold' ORDER BY alert_id"


@pytest.fixture(autouse=True)
def _ana(billing_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CENTAVO_TIER_WARNINGS", "true")
    settings.cache_clear()
    catalogues(NOW)
    a_customer("ana", plan="tiers-8m", currencies=("BRL",), now=NOW)


def use(quantity: int, key: str) -> None:
    record_usage(an_envelope(an_event("ana", [tokens(quantity)], key=key, occurred_at=NOW)), NOW)


def test_each_threshold_is_said_once() -> None:
    """Also when one event passes several, and when a void goes back below one."""
    use(6_399_999, "a")
    use(1, "b")
    void(TENANT, "b", "a mistake", NOW)
    use(1, "c")
    use(10_000_000, "d")

    assert rows(SAID) == [
        ("customer ana has used 80 % of what the fee covers: 6,400,000 tokens of 8,000,000",),
        ("customer ana has used 100 % of what the fee covers: 16,400,000 tokens of 8,000,000",),
        ("customer ana has used 80 % of what tier 1 covers: 16,400,000 tokens of 16,000,000",),
        ("customer ana has used 100 % of what tier 1 covers: 16,400,000 tokens of 16,000,000",),
    ]
    assert rows(
        "SELECT DISTINCT customer_id, split_part(detail, '; ', 2) FROM alerts WHERE kind = 'tier_threshold' ORDER BY 2"
    ) == [("ana", "tier 1 costs BRL 100.00"), ("ana", "tier 2 costs BRL 100.00")]


def test_each_period_of_a_day_is_warned_of() -> None:
    """A plan that is changed at once begins another, of the same size, on the same day."""
    use(7_000_000, "a")
    later = NOW + timedelta(hours=1)
    change_plan(TENANT, "ana", "prepaid", later, At.NOW)
    change_plan(TENANT, "ana", "tiers-8m", later + timedelta(hours=1), At.NOW)
    again = later + timedelta(hours=2)
    for key in ("b", "c"):
        event = an_event("ana", [tokens(3_500_000)], key=key, occurred_at=again)
        record_usage(an_envelope(event), again)

    periods = rows("SELECT plan_id, tokens FROM periods ORDER BY starts_at")
    assert periods[-1] == ("tiers-8m", 7_000_000)
    assert rows("SELECT percent, count(DISTINCT subject) FROM limit_warnings GROUP BY 1") == [(80, 2)]
    assert len(rows(SAID)) == 2


def test_nobody_is_warned_unless_the_setting_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CENTAVO_TIER_WARNINGS")
    settings.cache_clear()

    use(8_000_000, "a")

    assert rows(SAID) == []
