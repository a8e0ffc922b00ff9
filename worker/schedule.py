"""What beat says, and how often. Beat only says "look now"; what is due stands in Postgres."""

from typing import Any

from celery.schedules import crontab

from config.settings import Settings
from tasks import names

#: By the clock, not by an interval, which would begin anew with each start of beat. Four times a day: one that is
#: missed does no harm.
LOOKS = crontab(minute=17, hour="*/6")
LOOK_EXPIRES_SECONDS = 3600.0


def schedule(chosen: Settings) -> dict[str, dict[str, Any]]:
    """The table of ticks. A tick that nobody took in time is worth nothing: the next says the same."""
    return {
        "payments due": _tick(names.SWEEP_PAYMENTS, chosen.sweep_seconds, chosen),
        "refunds due": _tick(names.SWEEP_REFUNDS, 10.0, chosen),
        "webhooks due": _tick(names.SWEEP_WEBHOOKS, 10.0, chosen),
        "cards that came unseen": _tick(names.SWEEP_CARDS, 300.0, chosen),
        "wallets that are low": _tick(names.SWEEP_TOP_UPS, 30.0, chosen),
        "webhooks that were missed": _look(names.LOOK_FOR_MISSED_WEBHOOKS, chosen),
        "payments that are not final": _look(names.LOOK_AT_PAYMENTS, chosen),
    }


def _tick(task: str, seconds: float, chosen: Settings) -> dict[str, Any]:
    expires = max(10.0, 5 * seconds)
    return {"task": task, "schedule": seconds, "options": {"queue": chosen.ticks_queue, "expires": expires}}


def _look(task: str, chosen: Settings) -> dict[str, Any]:
    return {"task": task, "schedule": LOOKS, "options": {"queue": chosen.ticks_queue, "expires": LOOK_EXPIRES_SECONDS}}
