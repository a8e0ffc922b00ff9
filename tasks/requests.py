"""How messages become requests."""

from typing import Any

from celery.worker.request import Request

#: Headers by which a careless producer could make Celery throw usage away, or keep it back.
IGNORED_HEADERS = ("expires", "timelimit", "eta")


class PatientRequest(Request):
    """A request that no header can expire, cut short or delay: usage has happened, and is charged."""

    def __init__(self, message: Any, *args: Any, headers: Any = None, **options: Any) -> None:
        said = dict(message.headers if headers is None else headers)
        for name in IGNORED_HEADERS:
            said.pop(name, None)
        super().__init__(message, *args, headers=said, **options)
