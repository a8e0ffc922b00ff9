"""How messages become requests."""

from typing import Any

from celery.exceptions import InvalidTaskError, Reject, WorkerLostError
from celery.utils.log import get_logger
from celery.worker.request import Request
from celery.worker.state import task_ready

log = get_logger(__name__)

#: What a request needs to know, each of them text. Others could make Celery throw usage away (`expires`),
#: keep it back (`eta`), cut it short (`timelimit`) or fail over it (`stamped_headers` that are no list).
HEADERS = ("task", "id", "root_id", "parent_id", "lang", "origin")


class PatientRequest(Request):
    """A request that no header can expire, cut short or delay: usage has happened, and is charged."""

    def __init__(self, message: Any, *args: Any, headers: Any = None, **options: Any) -> None:
        said = message.headers if headers is None else headers
        kept = {name: said[name] for name in HEADERS if isinstance(said.get(name), str)}
        if not {"task", "id"} <= kept.keys():
            raise InvalidTaskError("the headers `task` and `id` are text")
        super().__init__(message, *args, headers=kept, **options)
        if not isinstance(self._args, list) or not isinstance(self._kwargs, dict) or not isinstance(self._embed, dict):
            raise InvalidTaskError("the body is a list of arguments, an object of named ones, and an object of options")

    @property
    def _embed(self) -> Any:
        return self._payload[2]

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Give the message back whatever went wrong: these tasks raise nothing on purpose but `Reject`.

        Celery would acknowledge most of it, and let a MemoryError end the main process.
        """
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, (Reject, WorkerLostError, SystemExit, KeyboardInterrupt)):
            super().on_failure(exc_info, send_failed_event, return_ok)
            return
        log.error("task %s failed outside its own care: %r", self.name, error)
        task_ready(self)
        self.reject(requeue=True)
