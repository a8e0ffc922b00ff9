"""Where messages may go, how they are signed, and when they come again."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.errors import Rejected
from billing.outgoing import (
    AGAIN_AFTER,
    AGE_MAX,
    REST_MAX,
    REST_MIN,
    again_at,
    check_url,
    rests_until,
    secret_of,
    signature,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hooks?tenant=acme",
        "https://example.com:8443/",
        "http://localhost:8000/hooks",
        "http://127.0.0.1:9/",
        "http://127.8.9.1/",
        "http://[::1]:8000/hooks",
    ],
)
def test_https_and_this_machine_may_be_told(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "https://",
        "http://example.com/",
        "http://10.0.0.1/",
        "http://localhost.example.com/",
        "http://127.0.0.1.example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://ana:secret@example.com/",
        "https://example.com/#part",
        "https://example.com/a b",
        "https://example.com/\n",
        "https://exämple.com/",
        "https://example.com:port/",
        "https://[::1",
        "https://example.com/" + "a" * 2000,
    ],
)
def test_others_may_not(url: str) -> None:
    with pytest.raises(Rejected) as refused:
        check_url(url)

    assert "secret" not in str(refused.value)


def test_while_a_secret_is_replaced_both_sign() -> None:
    """Each receiver finds its own; another time, id, body or secret makes another."""
    old, new = secret_of(b"1" * 32), secret_of(b"2" * 32)

    both = signature("msg_1", NOW, "{}", [new, old])

    assert both.split() == [signature("msg_1", NOW, "{}", [new]), signature("msg_1", NOW, "{}", [old])]
    others = [("msg_2", NOW, "{}"), ("msg_1", NOW + timedelta(seconds=1), "{}"), ("msg_1", NOW, "{ }")]
    assert not {signature(*other, [new]) for other in others} & set(both.split())


def test_what_is_no_secret_signs_nothing() -> None:
    with pytest.raises(Rejected):
        signature("msg_1", NOW, "{}", ["whsec_not base64"])


@given(st.integers(1, 20), st.integers(0, 200))
def test_a_message_comes_again_ever_later_and_is_given_up(tries: int, hours: int) -> None:
    again = again_at(tries, NOW - timedelta(hours=hours), NOW)

    assert (again is None) == (tries > len(AGAIN_AFTER) or timedelta(hours=hours) >= AGE_MAX)
    if again is not None:
        assert again == NOW + AGAIN_AFTER[tries - 1]


def test_ten_tries_fit_into_the_age() -> None:
    """Whoever is tried alone gets every try; and each comes later after the last than that did."""
    assert sum(AGAIN_AFTER, timedelta()) < AGE_MAX
    assert list(AGAIN_AFTER) == sorted(AGAIN_AFTER)


@given(st.integers(1, 10**6))
def test_an_endpoint_rests_longer_each_time_and_an_hour_at_most(failures: int) -> None:
    rest, longer = (rests_until(number, NOW) - NOW for number in (failures, failures + 1))

    assert REST_MIN <= rest <= longer <= REST_MAX
    assert rests_until(1, NOW) == NOW + REST_MIN
