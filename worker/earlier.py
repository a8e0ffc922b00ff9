"""What workers of an earlier release took from Redis and did not finish: it lies under kombu's own keys.

Those keys are common to every Celery application in the database. Only messages of ours are put back, and those only
after the visibility timeout, as that release would have done it; what others have there is theirs.
"""

import json
import time
from typing import Any

from celery.utils.log import get_logger
from kombu.transport import redis

from config import clock
from config.settings import settings
from tasks import queues

log = get_logger(__name__)

#: Messages looked at in one question to the broker.
LOOKED_AT = 100


class EarlierQoS(redis.QoS):
    """kombu's, over the keys that it has by itself."""

    unacked_key = "unacked"
    unacked_index_key = "unacked_index"
    restore_at_shutdown = False

    def __init__(self, channel: Any) -> None:
        super().__init__(channel)  # type: ignore[no-untyped-call]
        self._look_at = 0.0

    def restore_ours(self) -> None:
        """Put back what is ours and has been there for too long; looks once in every visibility timeout.

        At the start that finds what was left long before, and one timeout later what was left just before.
        """
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + self.visibility_timeout
        with self.channel.conn_or_acquire() as client:
            until = clock.unmoved().timestamp() - self.visibility_timeout  # kombu knows no other clock
            tags = client.zrange(self.unacked_index_key, 0, until, byscore=True)
            for first in range(0, len(tags), LOOKED_AT):
                some = tags[first : first + LOOKED_AT]
                for tag, noted in zip(some, client.hmget(self.unacked_key, some), strict=True):
                    if is_ours(noted):
                        log.warning("what an earlier release had taken is put back: %s", tag)
                        self.restore_by_tag(tag, client)  # type: ignore[no-untyped-call]


def is_ours(noted: bytes | None) -> bool:
    """Whether this note of kombu's is of a task of ours, from a queue of ours; what can't be read is not."""
    chosen = settings()
    try:
        message, _, queue = json.loads(noted or b"")
        task = message["headers"]["task"]
        return bool(
            task.startswith("centavo.") and (queues.takes_usage(queue, chosen) or queue in queues.names(chosen))
        )
    except (ValueError, TypeError, LookupError, AttributeError):
        return False
