"""Does `centavo api` answer here? `python -m api.health` asks it for `/health`: exit status 0 if it does, 1 if not.

It is asked where the settings say that it listens, as a container's health check needs it.
"""

import http.client
import sys
from http import HTTPStatus

from config.settings import settings

#: Less than Docker gives a check, so that it is we who say what was wrong.
SECONDS_MAX = 5

#: Whoever listens on every address is asked on loopback.
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - asked, not listened on


def report() -> tuple[bool, str]:
    """Whether the API answers, and a sentence about it."""
    chosen = settings()
    host = _EVERY_ADDRESS.get(chosen.api_host, chosen.api_host)
    where = f"{host} port {chosen.api_port}"
    try:
        status = _status(host, chosen.api_port)
    except (OSError, http.client.HTTPException) as error:
        return False, f"api does not answer at {where}: {error or type(error).__name__}; was it started?"
    if status != HTTPStatus.OK:
        return False, f"api is not well at {where}: it answers {status}"
    return True, f"api answers at {where}"


def _status(host: str, port: int) -> int:
    # Not urllib: that would ask a proxy that the environment names.
    connection = http.client.HTTPConnection(host, port, timeout=SECONDS_MAX)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    finally:
        connection.close()


def main() -> None:
    """Exit status 0 if the API answers, 1 if not."""
    is_well, sentence = report()
    sys.stdout.write(f"{sentence}\n")
    sys.exit(0 if is_well else 1)


if __name__ == "__main__":
    main()
