"""The month: each tick does what is due by now, in chunks, until nothing is, or its time is over.

Lost, late or doubled ticks do no harm: what is due is found from rows, under locks, and the next tick goes on.
"""

from typing import Any

from celery import shared_task

from config import clock
from config.settings import settings
from services.books.credits import break_expired
from services.cycle import closing, months, statements
from tasks import names
from tasks.by_the_clock import by_the_clock
from tasks.waiting import until_available, until_done

_SWEPT: dict[str, Any] = {"acks_late": True, "reject_on_worker_lost": True, "ignore_result": True}


@shared_task(name=names.TURN_MONTHS, **_SWEPT)
@by_the_clock
def turn_months() -> int:
    """Begin the periods whose time has come, with their fees and free credits; for how many customers.

    Several looks share the work, since each skips what another holds. So a look that finds a whole chunk, and more
    may be due, calls for another: whatever child is free takes it.
    """
    first = until_available(lambda: months.turn_due(clock.now())).customers
    if first < months.TURNED_AT_ONCE:
        return first
    turn_months.apply_async(queue=settings().ticks_queue)
    return first + until_done(lambda: months.turn_due(clock.now()).customers)


@shared_task(name=names.BREAK_GRANTS, **_SWEPT)
@by_the_clock
def break_grants() -> int:
    """Take what remains of grants whose time is over; how many."""
    return until_done(lambda: break_expired(clock.now()))


@shared_task(name=names.CLOSE_PERIODS, **_SWEPT)
@by_the_clock
def close_periods() -> int:
    """Close the periods whose grace has passed; how many were due."""
    return until_done(lambda: closing.close_due(clock.now()))


@shared_task(name=names.ISSUE_STATEMENTS, **_SWEPT)
@by_the_clock
def issue_statements() -> int:
    """Issue the statements of closed periods; how many."""
    return until_done(lambda: statements.issue_due(clock.now()))
