"""Two hundred at once on one wallet: never is more kept back than there is, and nothing is captured twice."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest
from sqlalchemy import Engine, create_engine

from billing.errors import IdempotencyConflict, InsufficientCredits
from config.settings import settings
from db import session
from services.books.credits import Grant, grant
from services.desk.credit_holds import HoldWish, Reserved, expire_due, release, reserve
from services.metering.usage import record_usage
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, rows, wallet

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
THREADS = 24
#: At USD 0.03 a thousand tokens.
THREE, HALF_OF_IT, A_LITTLE = tokens(100_000), tokens(50_000), tokens(1000)
HOLDERS, LITTLE_USES, TOP_UPS, SWEEPS = 120, 40, 30, 10


@pytest.fixture
def connections(billing_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A connection for each thread; a process has two."""
    assert billing_database
    make_engine = session.make_engine

    def with_more(url: str, **options: bool) -> Engine:
        one_of_ours = make_engine(url, **options)
        arguments = one_of_ours.pool._creator
        return create_engine("postgresql+psycopg://", creator=arguments, pool_size=THREADS, max_overflow=0)

    monkeypatch.setattr(session, "make_engine", with_more)
    yield
    session.close()


class Watcher(threading.Thread):
    """Looks at the wallet all the time: the least that was ever there beyond what is kept back."""

    def __init__(self) -> None:
        super().__init__()
        self.least = Decimal("inf")
        self.most_reserved = Decimal(0)
        self.looks = 0
        self.is_over = threading.Event()

    def run(self) -> None:
        with psycopg.connect(settings().required("database_url"), autocommit=True) as connection:
            while not self.is_over.is_set():
                row = connection.execute("SELECT balance - reserved, reserved FROM wallets").fetchone()
                assert row is not None
                self.least, self.most_reserved = min(self.least, row[0]), max(self.most_reserved, row[1])
                self.looks += 1


def held(number: int) -> Reserved | None:
    """Ask for three dollars; the same key twice, as a client does that has heard nothing."""
    wish = HoldWish(TENANT, "ana", f"hold-{number}", Decimal(3), "USD", seconds=60 if number % 4 == 0 else 3600)
    try:
        first = reserve(wish, NOW)
    except InsufficientCredits:
        return None
    again = reserve(wish, NOW)
    assert (again.hold_id, again.amount, again.is_new) == (first.hold_id, first.amount, False)
    return first


def hold_and_use(number: int) -> None:
    """Hold, use all of it or half of it, twice over, and let go of the rest."""
    hold = held(number)
    if hold is None:
        return
    item = HALF_OF_IT if number % 3 == 0 else THREE
    event = an_event("ana", [item], key=f"held-{number}", hold_id=hold.hold_id, occurred_at=NOW)
    for _ in range(2):
        record_usage(an_envelope(event), NOW)
    for _ in range(2):
        release(TENANT, hold.hold_id, NOW)


def use_a_little(number: int) -> None:
    record_usage(an_envelope(an_event("ana", [A_LITTLE], key=f"little-{number}", occurred_at=NOW)), NOW)


def top_up(number: int) -> None:
    grant(Grant(TENANT, "ana", "USD", Decimal(2), "purchase", "top_up", f"top-up-{number}"), NOW)


def sweep(_: int) -> None:
    """The time of every fourth hold is over by then."""
    expire_due(NOW + timedelta(minutes=2))


@pytest.mark.usefixtures("connections")
def test_two_hundred_at_once_on_one_wallet() -> None:
    """What was used without a hold may be missing afterwards, and no more than that; every event is debited once."""
    catalogues(NOW)
    a_customer("ana", credit="60", now=NOW)
    clients: list[tuple[Callable[[int], None], int]] = [
        (what, number)
        for what, many in ((hold_and_use, HOLDERS), (use_a_little, LITTLE_USES), (top_up, TOP_UPS), (sweep, SWEEPS))
        for number in range(many)
    ]
    assert len(clients) == 200
    random.Random(5).shuffle(clients)
    watcher = Watcher()
    watcher.start()

    with ThreadPoolExecutor(THREADS) as threads:
        ended = [threads.submit(what, number) for what, number in clients]
    watcher.is_over.set()
    watcher.join()

    assert [error for one_of_them in ended if (error := one_of_them.exception())] == []
    sweep(0)
    opened = one("SELECT count(*) FROM credit_holds")[0]
    assert 20 <= opened < HOLDERS
    captures = rows("""
        SELECT u.cost, c.taken, c.mark FROM usage_events u LEFT JOIN credit_captures c ON c.event_key = u.key
        WHERE u.hold_id IS NOT NULL AND u.status = 'charged'
    """)
    assert len(captures) == opened
    # Which of them a sweep was before, is left to chance; what each took of its hold is not.
    assert all(taken == (0 if mark == "expired" else cost) for cost, taken, mark in captures)
    assert {mark for _, _, mark in captures} <= {None, "expired"}
    without_hold = LITTLE_USES * Decimal("0.03")
    used = without_hold + sum(cost for cost, _, _ in captures)
    assert wallet("ana") == 60 + TOP_UPS * 2 - used
    assert watcher.looks > 20
    assert watcher.most_reserved > 3
    assert watcher.least >= -without_hold - sum(cost for cost, _, mark in captures if mark)
    assert one("SELECT reserved FROM wallets") == (0,)
    assert rows("SELECT 1 FROM credit_holds WHERE state = 'open'") == []
    assert one("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == (0,)


@pytest.mark.usefixtures("connections")
def test_one_key_of_many_clients_is_one_hold_or_a_conflict() -> None:
    """Of two customers, too: whoever is first owns the key."""
    catalogues(NOW)
    for customer in ("ana", "bob"):
        a_customer(customer, credit="10", now=NOW)

    def ask(number: int) -> str:
        customer = ("ana", "bob")[number % 2]
        try:
            return reserve(HoldWish(TENANT, customer, "k", Decimal(3), "USD"), NOW).customer_id
        except IdempotencyConflict:
            return "conflict"

    with ThreadPoolExecutor(THREADS) as threads:
        answers = list(threads.map(ask, range(40)))

    (owner,) = set(answers) - {"conflict"}
    assert answers.count(owner) == answers.count("conflict") == 20
    assert rows("SELECT customer_id, amount FROM credit_holds") == [(owner, 3)]
