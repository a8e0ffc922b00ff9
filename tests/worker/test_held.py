"""A customer whose wallets somebody holds, beside others in one envelope, on real workers."""

import pytest

from sandbox.processes import await_condition
from tests.conftest import WorkerStarter
from tests.factories import a_customer, an_envelope, an_event, catalogues
from tests.looking import wallet
from tests.services.held import held
from tests.worker.support import Broker, await_charged, charged, nothing_is_left, waits

pytestmark = pytest.mark.faults


def test_others_are_charged_and_the_envelope_stays_until_all_of_it_is(
    start_a_worker: WorkerStarter, producer: Broker, billing_database: str
) -> None:
    """It is neither acknowledged nor handed back meanwhile, and nobody is charged twice."""
    assert billing_database
    catalogues()
    for name in ("ana", "held", "zoe"):
        a_customer(name, credit="10")
    worker = start_a_worker(children=1)

    with held():
        producer.send(an_envelope(*[an_event(name) for _ in range(5) for name in ("held", "ana", "zoe")]))
        await_charged("ana", 5)
        await_charged("zoe", 5)
        await_condition(lambda: waits(worker) > 0, 60, "the worker to wait for the rest")
        assert charged("held") == 0
        assert producer.waiting + producer.unacknowledged == 1
    await_charged("held", 5)
    producer.await_drained()

    assert len({wallet(name) for name in ("ana", "held", "zoe")}) == 1
    assert nothing_is_left()
