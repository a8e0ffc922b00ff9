"""Working many customers at once, and one by one when something is wrong with one of them.

A set-based step fails as a whole. So that one customer's broken row never keeps a month from turning for the others,
a chunk that fails is worked customer by customer; whoever fails alone is set aside, and a person is told.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from billing.errors import Stopping, Unavailable
from billing.payments import AlertKind
from config.logging import logger
from db.alerts import raise_alert
from db.session import in_transaction

log = logger(__name__)

Identity = tuple[str, str]
"""tenant, customer"""


def worked(
    together: Callable[[], int],
    alone: Callable[[Identity], int],
    customers: Sequence[Identity],
    set_aside: Callable[[Identity, Exception], None],
) -> int:
    """Work a chunk; `customers` is what `together` has found, and is filled while it runs. The sum of what was done.

    What the database can't do now is nobody's fault, and leaves.
    """
    try:
        return together()
    except (Unavailable, Stopping):
        raise
    except Exception:
        log.exception("a chunk can't be worked together", customers=len(customers))
    done = 0
    for identity in list(customers):
        try:
            done += alone(identity)
        except (Unavailable, Stopping):
            raise
        except Exception as error:
            log.exception("a customer can't be worked", tenant_id=identity[0], customer_id=identity[1])
            set_aside(identity, error)
    return done


def tell(identity: Identity, kind: AlertKind, what: str, error: Exception, now: datetime) -> None:
    """Tell a person that something does not go on for a customer."""
    detail = f"{what} of customer {identity[1]}: {type(error).__name__}: {error}"

    in_transaction(
        lambda connection: raise_alert(connection, identity[0], kind, identity[1], detail, now, customer_id=identity[1])
    )
