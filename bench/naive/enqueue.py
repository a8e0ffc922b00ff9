"""Putting usage events on the naive worker's queue, a message each."""

from datetime import UTC, datetime
from typing import Any

from bench import workload
from bench.naive.app import app, record_usage


def enqueue(broker_url: str, events: int, customers: int, *, hot: bool = False, first: int = 0) -> None:
    """Publish events `first` to `first + events - 1`; returns when the broker has them all."""
    now = datetime.now(UTC).isoformat()
    with app.connection_for_write(broker_url) as connection:
        producer = app.amqp.Producer(connection)
        for usage in workload.usages(first, events, customers, hot=hot):
            record_usage.apply_async([message_of(usage, now)], producer=producer)


def message_of(usage: workload.Usage, occurred_at: str) -> dict[str, Any]:
    return {
        "tenant_id": workload.TENANT,
        "customer_id": workload.customer_name(usage.customer),
        "key": usage.key,
        "occurred_at": occurred_at,
        "items": [
            _item("llm_prompt", usage.prompt_tokens),
            _item("llm_completion", usage.completion_tokens),
        ],
    }


def _item(category: str, quantity: int) -> dict[str, Any]:
    return {
        "category": category,
        "provider": workload.PROVIDER,
        "model": workload.MODEL,
        "unit": workload.UNIT,
        "quantity": quantity,
    }
