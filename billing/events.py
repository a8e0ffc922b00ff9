"""What the rules ask of a usage event.

Two classes answer: the SDK's `centavo.UsageEvent`, which is the contract, and `services.metering.common_form.Event`,
which the worker reads nearly all events into, because that takes a fifth of the time.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol


class EventStep(StrEnum):
    """What happened to an event, in the order in which it may at one moment. The words are API."""

    RECEIVED = "received"
    PARKED = "parked"
    DEFERRED = "deferred"
    """It is recorded, and waits until somebody settles it."""
    METHOD_ASKED = "method_asked"
    """Its caller said how it is to be paid for, and it was."""
    SETTLE_REFUSED = "settle_refused"
    """Somebody wanted to settle it, and nothing covered it."""
    SETTLED = "settled"
    REPLAYED = "replayed"
    """It was parked, and is charged."""
    CHARGED = "charged"
    RERATED = "rerated"
    CANCELLED = "cancelled"
    """It waited, and is not to be charged."""
    VOIDED = "voided"


#: Of these an event's own row says nothing, or not for ever.
LOGGED_STEPS = (
    EventStep.DEFERRED,
    EventStep.METHOD_ASKED,
    EventStep.REPLAYED,
    EventStep.SETTLE_REFUSED,
    EventStep.SETTLED,
    EventStep.CANCELLED,
)


class Item(Protocol):
    """So much of a unit, of a model of a provider."""

    @property
    def category(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def quantity(self) -> Decimal: ...


class Rateable(Protocol):
    """What was used, by whom, and when, in UTC: what a price is looked up by."""

    @property
    def tenant_id(self) -> str: ...
    @property
    def customer_id(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def occurred_at(self) -> datetime: ...
    @property
    def items(self) -> Sequence[Item]: ...
    @property
    def metadata(self) -> dict[str, Any] | None: ...


class Attributed(Protocol):
    """Whose usage something is, and for what: an event's, or a question's before one."""

    @property
    def tenant_id(self) -> str: ...
    @property
    def customer_id(self) -> str: ...
    @property
    def user_id(self) -> str | None: ...
    @property
    def organization_id(self) -> str | None: ...
    @property
    def service_type(self) -> str | None: ...
    @property
    def feature(self) -> str | None: ...


class Event(Rateable, Attributed, Protocol):
    """The same, sent by a producer. Its bounds have been checked."""

    @property
    def hold_id(self) -> str | None: ...
