"""Beat's table of ticks, for a clock that may be set back."""

from typing import Any

from celery import beat

from config.logging import logger

log = logger(__name__)


class Scheduler(beat.Scheduler):
    """Begins an interval anew when its last tick lies in the future.

    Celery's own waits until that time has come again, and then for the interval: a clock that is set back by an hour
    would be an hour without a tick.
    """

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """Say what is due; how many seconds to wait."""
        now = self.app.now()
        ahead = [entry for entry in self.schedule.values() if entry.last_run_at > now]
        if ahead:
            log.warning("beat's clock went back: ticks begin anew", ticks=len(ahead))
            for entry in ahead:
                entry.last_run_at = now
            self.populate_heap()
        return super().tick(*args, **kwargs)
