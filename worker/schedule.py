"""What beat says, and how often. Beat only says "look now"; what is due stands in Postgres."""

import json
import sys
from typing import Any

from celery.schedules import crontab

from config.settings import Settings
from tasks import names

#: By the clock, not by an interval, which would begin anew with each start of beat. Four times a day: one that is
#: missed does no harm.
LOOKS = crontab(minute=17, hour="*/6")
LOOK_EXPIRES_SECONDS = 3600.0
#: Whether the audit is due, a row says; this is how late it may be.
AUDIT_LOOKS = crontab(minute="*/5")
AUDIT_LOOK_EXPIRES_SECONDS = 300.0
#: What has ended waits for its grace anyway: nobody sees whether it is found a minute sooner.
ENDS_LOOKED_FOR_EACH = 4
#: What is older by much than this says that beat, its broker or the workers that take ticks stand still.
NOTED_SECONDS = 5.0
#: Likewise of Stripe, which is asked nothing: an answer of any kind is enough.
REACHED_SECONDS = 30.0


#: For how many of its intervals a tick that waits is worth something, but for what clocks are apart.
INTERVALS_KEPT = 5
KEPT_SECONDS_MIN = 10.0


def schedule(chosen: Settings) -> dict[str, dict[str, Any]]:
    """The table of ticks. A tick that nobody took in time is worth nothing: the next says the same."""
    ends_seconds = ENDS_LOOKED_FOR_EACH * chosen.month_seconds
    return {
        "months that begin": _tick(names.TURN_MONTHS, chosen.month_seconds, chosen),
        "wallets that are low": _tick(names.SWEEP_TOP_UPS, 30.0, chosen),
        "holds whose time is over": _tick(names.SWEEP_HOLDS, 5.0, chosen),
        "usage written by SQL": _tick(names.DRAIN_INBOX, chosen.sweep_seconds, chosen),
        "payments due": _tick(names.SWEEP_PAYMENTS, chosen.sweep_seconds, chosen),
        "refunds due": _tick(names.SWEEP_REFUNDS, 10.0, chosen),
        "webhooks due": _tick(names.SWEEP_WEBHOOKS, 10.0, chosen),
        "cards that came unseen": _tick(names.SWEEP_CARDS, 300.0, chosen),
        "grants whose time is over": _tick(names.BREAK_GRANTS, ends_seconds, chosen),
        "periods to close": _tick(names.CLOSE_PERIODS, ends_seconds, chosen),
        "statements to issue": _tick(names.ISSUE_STATEMENTS, ends_seconds, chosen),
        "what is low or ends soon": _tick(names.LOOK_FOR_ALERTS, 60.0, chosen),
        "alerts to deliver": _tick(names.SWEEP_ALERTS, 10.0, chosen),
        "quotas that were reached together": _tick(names.LOOK_AT_QUOTAS, 60.0, chosen),
        "usage that has its price at last": _tick(names.REPLAY_PRICED, 10.0, chosen),
        "usage by prices beside the live ones": _tick(names.RATE_SHADOW_PRICES, 60.0, chosen),
        "that beat ticks": _tick(names.NOTE_TICK, NOTED_SECONDS, chosen),
        "that Stripe is there": _tick(names.REACH_STRIPE, REACHED_SECONDS, chosen),
        "webhooks that were missed": _look(names.LOOK_FOR_MISSED_WEBHOOKS, chosen),
        "payments that are not final": _look(names.LOOK_AT_PAYMENTS, chosen),
        "an audit that is due": {
            "task": names.AUDIT_WHEN_DUE,
            "schedule": AUDIT_LOOKS,
            "options": {"queue": chosen.ticks_queue, "expires": _expires(AUDIT_LOOK_EXPIRES_SECONDS, chosen)},
        },
    }


def _tick(task: str, seconds: float, chosen: Settings) -> dict[str, Any]:
    expires = _expires(max(KEPT_SECONDS_MIN, INTERVALS_KEPT * seconds), chosen)
    return {"task": task, "schedule": seconds, "options": {"queue": chosen.ticks_queue, "expires": expires}}


def _look(task: str, chosen: Settings) -> dict[str, Any]:
    expires = _expires(LOOK_EXPIRES_SECONDS, chosen)
    return {"task": task, "schedule": LOOKS, "options": {"queue": chosen.ticks_queue, "expires": expires}}


def _expires(seconds: float, chosen: Settings) -> float:
    """When a tick that is worth something for so long expires.

    The message names a time by beat's clock, which the worker compares with its own: both may be as far from Postgres'
    as the setting allows, to either side. After an hour without a worker 7,300 ticks wait, as ever, of which the last
    1,300 have not expired: a few milliseconds each for all of them that find nothing, seconds for one child.
    """
    return 2 * chosen.clocks_apart_seconds_max + seconds


if __name__ == "__main__":
    # For a simulation, which says the same ticks in a time of its own: the tasks that come again after some seconds.
    table = schedule(Settings()).values()
    sys.stdout.write(json.dumps([tick["task"] for tick in table if isinstance(tick["schedule"], float)]))
