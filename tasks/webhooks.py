"""What Stripe tells: working an event, the sweep over what is due, and the look for what was missed."""

from functools import lru_cache
from typing import Any

from celery import Celery, shared_task

from config import clock
from config.settings import settings
from services.collecting import webhooks
from services.collecting.gateways import gateway
from tasks import names
from tasks.by_the_clock import by_the_clock
from tasks.queues import declared, is_rabbitmq
from tasks.waiting import until_available

# Lost or doubled messages do no harm: an event that nobody worked is due again.
_SWEPT: dict[str, Any] = {"acks_late": True, "reject_on_worker_lost": True, "ignore_result": True}

#: Seconds. Who hands over has others waiting; the sweep finds what could not be handed over.
CONNECT_SECONDS_MAX = 2
SOCKET_SECONDS_MAX = 5


@shared_task(name=names.WORK_WEBHOOK, **_SWEPT)
@by_the_clock
def work_webhook(event_id: str) -> None:
    """Do what an event asks for."""
    until_available(lambda: webhooks.work(event_id, gateway(), clock.now()))


@shared_task(name=names.SWEEP_WEBHOOKS, **_SWEPT)
@by_the_clock
def sweep_webhooks() -> int:
    """Hand out the events that are due; how many."""
    due = until_available(lambda: webhooks.sweep(clock.now()))
    for event_id in due:
        work_webhook.apply_async((event_id,), queue=settings().payments_queue)
    return len(due)


@shared_task(name=names.LOOK_FOR_MISSED_WEBHOOKS, **_SWEPT)
@by_the_clock
def look_for_missed_webhooks() -> int:
    """Fetch what Stripe could not deliver; how many events were new."""
    return until_available(lambda: webhooks.look_for_missed(gateway(), clock.now()))


def hand_over(event_id: str) -> None:
    """Tell a worker of an event, from a process that is no worker. Raises whatever the broker's client raises."""
    chosen = settings()
    sender = _sender(chosen.required("broker_url"), chosen.payments_queue)
    bounds = {"retry": False, "confirm_timeout": SOCKET_SECONDS_MAX}
    sender.send_task(names.WORK_WEBHOOK, (event_id,), queue=chosen.payments_queue, **bounds)


@lru_cache(maxsize=1)
def _sender(broker_url: str, queue: str) -> Celery:
    """An app that only publishes: whoever receives webhooks does not load the worker."""
    app = Celery("centavo-api", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        task_ignore_result=True,
        task_queues=[declared(queue, settings())],
        task_create_missing_queues=False,
        broker_connection_timeout=CONNECT_SECONDS_MAX,
        broker_transport_options=_transport_options(broker_url),
    )
    return app


def _transport_options(broker_url: str) -> dict[str, Any]:
    if is_rabbitmq(broker_url):
        return {"confirm_publish": True}
    return {"socket_connect_timeout": CONNECT_SECONDS_MAX, "socket_timeout": SOCKET_SECONDS_MAX, "max_retries": 0}
