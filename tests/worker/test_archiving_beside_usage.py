"""Archiving does not stop usage, and usage does not disturb it."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from db import archiving as rows_of
from services.cycle.archiving import Asked, archive
from tests.conftest import WorkerStarter
from tests.factories import an_envelope, an_event
from tests.looking import one, wallet
from tests.services.correcting import seconds
from tests.services.past_usage import used_long_ago
from tests.worker.support import Broker, charged, nothing_is_left


def test_a_worker_charges_while_the_past_of_its_customers_is_archived(
    start_a_worker: WorkerStarter, producer: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wallet is written by both; what is archived comes once more meanwhile, and is a duplicate."""
    monkeypatch.setattr(rows_of, "PAGE", 5)
    now = datetime.now(UTC)
    old = used_long_ago(now)
    before = wallet("ana")
    start_a_worker(children=2)

    seen = 0

    def send_more(*_progress: object) -> None:
        nonlocal seen
        seen += 1
        new = [an_event(customer, [seconds(1)]) for customer in ("ana", "ana", "bob")]
        producer.send(an_envelope(*new, *old[seen % 70 : seen % 70 + 10]))

    done = archive(Asked(6, tmp_path), now, send_more)

    producer.await_drained()
    assert seen > 20
    assert sum(each.events or 0 for each in done) == len(old)
    assert one("SELECT count(*) FROM usage_events WHERE archive_id IS NOT NULL") == (len(old),)
    assert (charged("ana"), charged("bob")) == (40 + 2 * seen, 40 + seen)
    assert before - wallet("ana") == Decimal(2 * seen)
    assert nothing_is_left()
