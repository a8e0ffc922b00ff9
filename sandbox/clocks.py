"""The clock of a sandbox, which is two: ours, and the Stripe double's.

They must agree: what the double signs is refused as stale, or as of the future, by an `api` that goes by another.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from billing.errors import Unavailable
from config import clock
from sandbox.stripe_double.control import ControlError, DoubleControl


class DoubleAway(Unavailable):
    """The Stripe double does not answer."""


def double_offset(api_base: str) -> timedelta:
    """How far the double's clock is moved. Raises `DoubleAway`."""
    with _reaching(api_base):
        return timedelta(seconds=DoubleControl(api_base).offset())


def move_double(api_base: str, offset: timedelta) -> None:
    """Move the double's clock alone: that of a double which has just begun. Raises `DoubleAway`."""
    with _reaching(api_base):
        DoubleControl(api_base).set_offset(int(offset.total_seconds()))


def move_both(api_base: str, offset: timedelta) -> None:
    """Move both clocks to this offset, wherever each of them was. Raises `DoubleAway`, and as `clock.set_offset` does.

    Ours last: the next move is reckoned from it, so whoever runs one again that was cut short asks for the same.
    """
    move_double(api_base, offset)
    clock.set_offset(offset)


@contextmanager
def _reaching(api_base: str) -> Iterator[None]:
    try:
        yield
    except (ControlError, OSError, ValueError) as error:
        raise DoubleAway(f"no Stripe double answers at {api_base}, so its clock can't be moved: {error}") from error
