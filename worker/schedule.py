"""What beat says, and how often. Beat only says "look now"; what is due stands in Postgres."""

from typing import Any

from config.settings import Settings
from tasks import names


def schedule(chosen: Settings) -> dict[str, dict[str, Any]]:
    """The table of ticks. A tick that nobody took in time is worth nothing: the next says the same."""
    return {
        "payments due": _tick(names.SWEEP_PAYMENTS, chosen.sweep_seconds, chosen),
    }


def _tick(task: str, seconds: float, chosen: Settings) -> dict[str, Any]:
    expires = max(10.0, 5 * seconds)
    return {"task": task, "schedule": seconds, "options": {"queue": chosen.ticks_queue, "expires": expires}}
