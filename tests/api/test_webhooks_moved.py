"""Webhooks where the clock was moved: the double signs in the time in which we compare."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from config import clock
from config.settings import settings
from sandbox.clocks import move_both
from sandbox.stripe_double.control import DoubleControl
from sandbox.stripe_double.wishes import Delivery
from tests.api.signed import PATH, SECRET
from tests.looking import one
from tests.services.collecting import owing

MOVED = timedelta(hours=25)
ONCE = Delivery(attempts_max=1)


def both() -> None:
    move_both(settings().stripe_api_base or "", MOVED)


def ours() -> None:
    clock.set_offset(MOVED)


def the_doubles() -> None:
    DoubleControl(settings().stripe_api_base or "").advance(int(MOVED.total_seconds()))


def kept_after(move: Callable[[], None], api: str, delivery: Delivery) -> tuple[datetime | None, datetime | None]:
    """When the card that is attached after a move was, as Stripe says and as we do; None if it was refused."""
    move()
    double = DoubleControl(settings().stripe_api_base or "")
    double.set_webhooks(f"{api}{PATH}", SECRET, delivery)
    owing()
    double.wait_sent()
    created_at, received_at = one("SELECT max(created_at), max(received_at) FROM webhook_events")
    return created_at, received_at


def test_what_a_double_signs_that_was_moved_along_is_kept(api: str) -> None:
    for at in kept_after(both, api, ONCE):
        assert at is not None
        assert abs(at - datetime.now(UTC) - MOVED) < timedelta(minutes=1)


@pytest.mark.parametrize("move", [ours, the_doubles])
def test_what_is_signed_in_another_time_is_refused(api: str, move: Callable[[], None]) -> None:
    assert kept_after(move, api, ONCE) == (None, None)


@pytest.mark.parametrize("signature", ["stale", "future"])
def test_what_is_signed_off_the_time_is_refused_in_any(api: str, signature: str) -> None:
    delivery = Delivery.model_validate({"signature": signature, "attempts_max": 1})

    assert kept_after(both, api, delivery) == (None, None)
