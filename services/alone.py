"""Working many customers at once, and one by one when something is wrong with one of them.

A set-based step fails as a whole. So that one customer's broken row never keeps a month from turning for the others,
a chunk that fails is worked customer by customer; whoever fails alone is set aside, and a person is told. The same goes
for a chunk that takes too long, or waits for a customer whom somebody holds; whoever is held is put off, and nobody is
told: that ends by itself.
"""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from random import sample

from billing.errors import DatabaseBusy, DatabaseSlow, Stopping, Unavailable
from billing.payments import AlertKind
from config.logging import logger
from db.alerts import raise_alert
from db.session import in_transaction

log = logger(__name__)

Identity = tuple[str, str]
"""tenant, customer"""

#: One customer may be held, or slow, and some more; where so long was waited for nothing, it is the database.
WAITED_SECONDS_MAX = 30.0


def worked(
    together: Callable[[], int],
    alone: Callable[[Identity], int],
    customers: Sequence[Identity],
    set_aside: Callable[[Identity, Exception], None],
    put_off: Callable[[Identity], None] = lambda _: None,
) -> int:
    """Work a chunk; `customers` is what `together` has found, and is filled while it runs. The sum of what was done.

    Both should try a lock `LOCK_TRIES_OF_PARTS` times: whoever waits longer for one customer holds others meanwhile.
    What the database can't do now is nobody's fault, and leaves.
    """
    try:
        return together()
    except (DatabaseBusy, DatabaseSlow) as error:
        if not customers:  # looking for them was what took too long
            raise
        log.warning("a chunk is held up, and worked one by one", customers=len(customers), error=str(error))
    except (Unavailable, Stopping):
        raise
    except Exception:
        log.exception("a chunk can't be worked together", customers=len(customers))
    return one_by_one(alone, customers, set_aside, put_off)


def one_by_one(
    alone: Callable[[Identity], int],
    customers: Sequence[Identity],
    set_aside: Callable[[Identity, Exception], None],
    put_off: Callable[[Identity], None],
) -> int:
    """Work each of these customers alone; the sum of what was done. What is raised is as `worked` says."""
    done, waited = 0, 0.0
    # By chance: should time be over before everybody had a turn, the next look reaches others.
    for identity in sample(customers, len(customers)):
        tenant_id, customer_id = identity
        began = time.perf_counter()
        try:
            done += alone(identity)
        except DatabaseBusy as error:
            log.warning("a customer is held, and put off", tenant_id=tenant_id, customer_id=customer_id)
            put_off(identity)
            waited = _waited(waited, began, error)
        except DatabaseSlow as error:
            log.warning("a customer takes too long, and is set aside", tenant_id=tenant_id, customer_id=customer_id)
            set_aside(identity, error)
            waited = _waited(waited, began, error)
        except (Unavailable, Stopping):
            raise
        except Exception as error:
            log.exception("a customer can't be worked", tenant_id=tenant_id, customer_id=customer_id)
            set_aside(identity, error)
    return done


def _waited(before: float, began: float, error: Unavailable) -> float:
    """How many seconds were waited for nothing by now. Raises the error where they are too many."""
    waited = before + time.perf_counter() - began
    if waited > WAITED_SECONDS_MAX:
        raise error
    return waited


def tell(identity: Identity, kind: AlertKind, what: str, error: Exception, now: datetime) -> None:
    """Tell a person that something does not go on for a customer."""
    detail = f"{what} of customer {identity[1]}: {type(error).__name__}: {error}"

    in_transaction(
        lambda connection: raise_alert(connection, identity[0], kind, identity[1], detail, now, customer_id=identity[1])
    )
