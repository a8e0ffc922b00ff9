"""The Celery app: `celery -A worker.app worker` or, easier, `centavo worker`."""

from typing import Any

from celery import Celery

from config.settings import Settings, settings
from tasks import queues
from worker import frames, lifecycle, rabbitmq
from worker.schedule import schedule


def configuration(chosen: Settings) -> dict[str, Any]:
    """Celery's settings, each with its reason."""
    return {
        "broker_url": chosen.required("broker_url"),
        # JSON only: a pickle from the network would run as code.
        "accept_content": ["json"],
        "task_serializer": "json",
        # Nothing reads results or events.
        "result_backend": None,
        "task_ignore_result": True,
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,
        # A message is gone when its transaction is committed, not before.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_prefetch_multiplier": 4,
        "worker_soft_shutdown_timeout": 10,
        # A broker that is away is waited for, at the start and ever after.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,
        "broker_transport_options": transport_options(chosen),
        "task_queues": [queues.declared(name, chosen) for name in queues.names(chosen)],
        "task_default_queue": chosen.usage_queue,
        "task_default_exchange": "",
        "task_create_missing_queues": False,
        "task_routes": {"centavo.sweep_*": {"queue": chosen.ticks_queue}},
        "worker_consumer": "worker.intake:Intake",
        "imports": (
            "tasks.usage",
            "tasks.payments",
            "tasks.refunds",
            "tasks.topups",
            "tasks.credit_holds",
            "tasks.webhooks",
            "tasks.months",
            "tasks.audits",
            "tasks.quotas",
            "tasks.deliveries",
            "tasks.inbox",
            "tasks.parked",
            "tasks.shadowing",
            "tasks.ticks",
        ),
        "beat_schedule": schedule(chosen),
        "beat_scheduler": "worker.beat:Scheduler",
        "timezone": "UTC",
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }


def transport_options(chosen: Settings) -> dict[str, Any]:
    """What the broker's connection is told; Redis and RabbitMQ each take what is theirs."""
    if queues.is_rabbitmq(chosen.required("broker_url")):
        # How long a confirmation is waited for: worker/rabbitmq.py.
        return {"confirm_publish": True}
    return {
        **queues.UNACKED_KEYS,
        # A message that nobody acknowledged comes back after this many seconds: a main process was killed.
        "visibility_timeout": chosen.visibility_timeout_seconds,
        "unacked_restore_interval": min(10, max(1, chosen.visibility_timeout_seconds // 3)),
        "unacked_restore_throttle": 1,
        "socket_timeout": 15,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 25,
    }


frames.install()
rabbitmq.install()
app = Celery("centavo")
app.conf.update(configuration(settings()))
lifecycle.connect()
