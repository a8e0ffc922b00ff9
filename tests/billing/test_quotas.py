"""Windows, thresholds, and what goes over: pure, and the same however usage is cut into transactions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.quotas import (
    Measure,
    Per,
    Quota,
    QuotaKind,
    Scope,
    fits,
    over,
    reached,
    window_ends_at,
    window_of,
    windows_of,
)

ZONES = ("UTC", "America/Sao_Paulo", "Asia/Kathmandu", "Pacific/Apia", "Africa/Cairo")
MOMENTS = st.datetimes(datetime(2005, 1, 2), datetime(2035, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
AMOUNTS = st.decimals(0, 200, places=2)
LIMITS = st.decimals(0, 500, places=2)

QUOTA = Quota(
    *("acme", 1, "q", QuotaKind.QUOTA, Scope.CUSTOMER, "", None, None),
    *(Per.MONTH, "UTC", Measure.TOKENS, None, Decimal(100), True),
)


@dataclass(frozen=True)
class Used:
    """Who used something, and for what."""

    tenant_id: str = "acme"
    customer_id: str = "ana"
    user_id: str | None = "u1"
    organization_id: str | None = None
    service_type: str | None = "model_inference"
    feature: str | None = "chat"


@given(MOMENTS, st.sampled_from(list(Per)), st.sampled_from(ZONES))
def test_every_moment_lies_in_one_window_and_the_next_begins_where_it_ends(
    moment: datetime, per: Per, zone: str
) -> None:
    window = window_of(moment, per, zone)
    ends_at = window_ends_at(window, per, zone)

    assert moment < ends_at
    assert window_of(ends_at - timedelta.resolution, per, zone) == window
    assert window_of(ends_at, per, zone) > window


@given(
    st.sampled_from([datetime(2025, 4, 24, 20, tzinfo=UTC), datetime(2010, 11, 7, 2, tzinfo=UTC)]) | MOMENTS,
    st.lists(st.timedeltas(timedelta(0), timedelta(hours=60)), min_size=1, max_size=6),
    st.sampled_from(list(Per)),
    st.sampled_from([*ZONES, "America/St_Johns"]),
)
def test_several_moments_lie_in_the_windows_in_which_each_does(
    moment: datetime, after: Sequence[timedelta], per: Per, zone: str
) -> None:
    """Also where a day is set back a minute after it began, as it was in St John's until 2011."""
    moments = [moment, *(moment + one for one in after)]

    assert windows_of(moments, per, zone) == [window_of(one, per, zone) for one in moments]


def test_a_day_that_is_shown_again_is_no_window_of_its_own() -> None:
    moments = [datetime(2010, 11, 7, 1, tzinfo=UTC) + timedelta(minutes=minutes) for minutes in range(0, 300, 1)]

    assert windows_of(moments, Per.DAY, "America/St_Johns") == [
        window_of(one, Per.DAY, "America/St_Johns") for one in moments
    ]


@pytest.mark.parametrize(
    ("per", "zone", "window", "ends_at"),
    [
        (Per.DAY, "UTC", date(2026, 11, 1), datetime(2026, 11, 2, tzinfo=UTC)),
        (Per.DAY, "America/Sao_Paulo", date(2026, 10, 31), datetime(2026, 11, 1, 3, tzinfo=UTC)),
        (Per.MONTH, "UTC", date(2026, 11, 1), datetime(2026, 12, 1, tzinfo=UTC)),
        (Per.MONTH, "America/Sao_Paulo", date(2026, 10, 1), datetime(2026, 11, 1, 3, tzinfo=UTC)),
    ],
)
def test_a_window_is_a_day_or_a_month_of_its_zone(per: Per, zone: str, window: date, ends_at: datetime) -> None:
    moment = datetime(2026, 11, 1, 2, tzinfo=UTC)

    assert window_of(moment, per, zone) == window
    assert window_ends_at(window, per, zone) == ends_at


@given(st.lists(st.lists(AMOUNTS, min_size=1, max_size=5), max_size=8), LIMITS)
def test_thresholds_and_marks_do_not_depend_on_how_usage_is_cut(
    transactions: Sequence[Sequence[Decimal]], limit: Decimal
) -> None:
    """Told one by one, or transaction by transaction: the same thresholds, each once, and the same events over."""
    used, said, marks = Decimal(0), [], []
    for amounts in transactions:
        used += sum(amounts)
        said += [percent for percent in reached(used, limit) if percent not in said]
        marks += over(used, amounts, limit)

    alone = [amount for amounts in transactions for amount in amounts]
    so_far = [sum(alone[: place + 1]) for place in range(len(alone))]
    assert marks == [amount > 0 and total > limit for amount, total in zip(alone, so_far, strict=True)]
    assert tuple(said) == (reached(used, limit) if alone else ())


@given(AMOUNTS, AMOUNTS, LIMITS)
def test_what_fits_does_not_go_over(used: Decimal, asked: Decimal, limit: Decimal) -> None:
    """And where nothing is left, or the limit is reached, nothing fits."""
    does_fit = fits(used, asked, limit)

    assert does_fit == (used < limit and over(used + asked, [asked], limit) == [False])
    assert not (does_fit and 100 in reached(used, limit))


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({}, "ana"),
        ({"subject": "ana"}, "ana"),
        ({"subject": "bob"}, None),
        ({"scope": Scope.USER}, "u1"),
        ({"scope": Scope.TENANT}, ""),
        ({"scope": Scope.ORGANIZATION}, None),
        ({"service_type": "model_inference"}, "ana"),
        ({"service_type": "notification"}, None),
        ({"feature": "chat"}, "ana"),
        ({"feature": "voice"}, None),
        ({"measure": Measure.COST, "currency": "USD"}, "ana"),
        ({"measure": Measure.COST, "currency": "BRL"}, None),
    ],
)
def test_a_quota_counts_what_it_is_for(changes: dict[str, object], subject: str | None) -> None:
    assert replace(QUOTA, **changes).subject_of(Used(), "USD") == subject  # type: ignore[arg-type]


@pytest.mark.parametrize(("measure", "amount"), [(Measure.TOKENS, 7), (Measure.EVENTS, 1), (Measure.COST, 3)])
def test_what_an_event_adds(measure: Measure, amount: int) -> None:
    assert replace(QUOTA, measure=measure).amount(7, Decimal(3)) == amount
