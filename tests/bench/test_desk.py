"""What is drained with holds in use: every fiftieth event captures its customer's."""

from datetime import UTC, datetime

from bench import desk, workload

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def test_every_fiftieth_event_names_its_customers_hold_and_all_else_is_the_same() -> None:
    usages = list(workload.usages(100, 101, 1000))

    plain = [desk.plain_event(usage, NOW) for usage in usages]
    capturing = [desk.capturing_event(usage, NOW) for usage in usages]

    named = [event.hold_id for event in capturing if event.hold_id is not None]
    assert named == [f"hold-{plain[place].customer_id}" for place in (0, 50, 100)]
    assert [event.model_copy(update={"hold_id": None}) for event in capturing] == plain
    assert {event.feature for event in plain} == {desk.FEATURE}
