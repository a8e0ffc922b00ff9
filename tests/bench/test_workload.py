from collections import Counter
from uuid import UUID

import pytest

from bench import workload


def test_an_event_never_changes_or_figures_of_two_years_could_not_be_compared() -> None:
    event = workload.usage(123_456, 10_000)

    expected = workload.Usage(
        number=123_456,
        customer=913,
        key="01a19467-f813-74e1-a345-4a222287c138",
        prompt_tokens=1_100,
        completion_tokens=18,
    )
    assert expected == event


def test_customers_of_a_uniform_load_have_about_the_same_number_of_events() -> None:
    events = Counter(workload.customer_of(number, 100) for number in range(20_000))

    assert set(range(100)) == set(events)
    assert min(events.values()) > 140
    assert max(events.values()) < 260


def test_half_of_a_hot_load_belongs_to_one_customer_and_the_rest_is_unchanged() -> None:
    hot = [workload.customer_of(number, 10_000, hot=True) for number in range(1_000)]

    uniform = [workload.customer_of(number, 10_000) for number in range(1_000)]
    assert hot[::2] == [0] * 500
    assert uniform[1::2] == hot[1::2]


def test_an_event_has_about_two_thousand_tokens_in_and_twenty_eight_out() -> None:
    events = list(workload.usages(0, 20_000, 10_000))

    assert pytest.approx(2046, rel=0.03) == sum(event.prompt_tokens for event in events) / 20_000
    assert pytest.approx(28, rel=0.03) == sum(event.completion_tokens for event in events) / 20_000


def test_keys_are_different_uuids_of_version_7_whose_time_never_falls() -> None:
    keys = [UUID(workload.key_of(number)) for number in range(20_000)]

    assert len(set(keys)) == len(keys)
    assert {7} == {key.version for key in keys}
    times = [key.int >> 80 for key in keys]
    assert sorted(times) == times


def test_ranges_of_events_that_follow_each_other_are_one_longer_range() -> None:
    parts = [*workload.usages(0, 70, 10, hot=True), *workload.usages(70, 30, 10, hot=True)]

    assert list(workload.usages(0, 100, 10, hot=True)) == parts
