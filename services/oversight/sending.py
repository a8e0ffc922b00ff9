"""One HTTP request to an address that a tenant told us: bounded, without redirects, and telling nothing of ours."""

from collections.abc import Mapping
from typing import NamedTuple

import requests

CONNECT_SECONDS_MAX = 3.0
ANSWER_SECONDS_MAX = 7.0


class Answer(NamedTuple):
    """What came back: a status, or why there is none."""

    status: int | None
    error: str | None

    @property
    def is_received(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def send(url: str, body: str, headers: Mapping[str, str]) -> Answer:
    """POST a body. The answer's own body is not read, a redirect is not followed, no proxy or netrc is asked."""
    try:
        with requests.Session() as session:
            session.trust_env = False
            timeout = (CONNECT_SECONDS_MAX, ANSWER_SECONDS_MAX)
            with session.post(
                url, data=body.encode(), headers=dict(headers), timeout=timeout, allow_redirects=False, stream=True
            ) as response:
                return Answer(response.status_code, None)
    except (requests.RequestException, ValueError) as error:
        # Its words hold the address, and may hold more: the kind of it is enough.
        return Answer(None, type(error).__name__)
