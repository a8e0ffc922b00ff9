"""What arrives and can't even be handed to a task: kept as it came."""

from datetime import datetime

from billing.rating import ParkReason
from config.logging import logger
from db.session import in_transaction
from services.metering.envelopes import Unusable
from services.metering.usage import park_inputs
from services.showing import readable

log = logger(__name__)


def park_message(raw: bytes, reason: ParkReason, detail: str, now: datetime) -> None:
    """Park a message by its bytes; once per content, however often it comes."""
    unusable = Unusable(raw, reason, readable(detail))
    is_new = in_transaction(lambda connection: park_inputs(connection, [unusable], now))
    log.warning("message parked", reason=reason, detail=detail, bytes=len(raw), is_new=bool(is_new))
