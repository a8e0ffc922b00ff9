"""Which queues a worker takes that is asked for some, and how much it may have at hand."""

import pytest
from pydantic import SecretStr

from cli.processes import _left, _prefetch
from config.settings import Settings
from tasks import queues

AWAY = SecretStr("redis://127.0.0.1:1/0")
RABBITMQ = SecretStr("amqp://127.0.0.1:1//")


@pytest.mark.parametrize(
    ("asked", "shards", "left", "taken"),
    [
        ("usage", 0, (), "usage"),
        ("usage", 1, (), "usage"),
        ("usage", 2, (), "usage,usage.0,usage.1"),
        ("usage", 2, ("usage.5",), "usage,usage.0,usage.1,usage.5"),
        ("usage.1", 2, (), "usage,usage.1"),
        ("usage.0, usage.1,ticks", 0, (), "usage,usage.0,usage.1,ticks"),
        ("payments,ticks", 8, (), "payments,ticks"),
        ("usage.64,usage.x,usage.01", 8, (), "usage.64,usage.x,usage.01"),
    ],
)
def test_which_queues_a_worker_takes(asked: str, shards: int, left: tuple[str, ...], taken: str) -> None:
    chosen = Settings(broker_url=AWAY, usage_shards=shards)

    assert ",".join(queues.taken(asked, chosen, left)) == taken


def test_a_broker_that_is_away_keeps_no_worker_from_starting() -> None:
    chosen = Settings(broker_url=AWAY, usage_shards=2)

    assert _left("usage", chosen) == ()
    assert _left("payments", Settings()) == ()


def test_a_worker_is_told_of_every_shard_that_it_takes() -> None:
    chosen = Settings(broker_url=AWAY, usage_shards=2)

    assert [queues.shards_among(names, chosen) for names in (("usage",), ("usage.0",), ("usage", "usage.6"))] == [
        0,
        2,
        7,
    ]


def test_what_a_worker_has_at_hand() -> None:
    """RabbitMQ counts it for each queue, Redis for all together."""
    eight = queues.taken("usage", Settings(broker_url=AWAY, usage_shards=8))

    assert _prefetch(eight, Settings(broker_url=AWAY)) == 100
    assert _prefetch(eight, Settings(broker_url=RABBITMQ)) == 20
    assert _prefetch(("usage",), Settings(broker_url=RABBITMQ)) == 100
    assert _prefetch(("usage", "ticks"), Settings(broker_url=AWAY)) == 4
