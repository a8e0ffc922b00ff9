"""Waiting for a database that is slow: for ever where nobody else would try again."""

import pytest

from billing.errors import DatabaseBusy, TooSlow
from db import session
from db.session import Connection, in_transaction
from tasks.waiting import SLOW_TRIES, until_available, until_worked

pytestmark = pytest.mark.usefixtures("billing_database")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "LIMITS", session.LIMITS | {"statement_timeout": "50ms"})
    session.close()


class Slow:
    """Work that takes too long so often."""

    def __init__(self, times: int) -> None:
        self.times, self.tries = times, 0

    def __call__(self) -> str:
        self.tries += 1
        return in_transaction(self._work)

    def _work(self, connection: Connection) -> str:
        if self.tries <= self.times:
            connection.execute("SELECT pg_sleep(5)")
        return "done"


def test_what_is_found_again_is_given_up_for_now() -> None:
    work = Slow(100)

    with pytest.raises(TooSlow, match="statement timeout"):
        until_available(work)
    assert work.tries == SLOW_TRIES
    assert until_available(Slow(SLOW_TRIES - 1)) == "done"


def test_so_is_what_somebody_holds() -> None:
    tries = 0

    def work() -> None:
        nonlocal tries
        tries += 1
        raise DatabaseBusy

    with pytest.raises(TooSlow):
        until_available(work)
    assert tries == SLOW_TRIES


def test_usage_waits_on() -> None:
    assert until_worked(Slow(SLOW_TRIES + 1)) == "done"
