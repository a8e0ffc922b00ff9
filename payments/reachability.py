"""Whether Stripe can be reached from here, without a key: an answer of any kind says so."""

import requests

from payments.gateway import GatewayUnavailable

API_BASE = "https://api.stripe.com"
SERVER_ERROR = 500


def reach(api_base: str | None, timeout_seconds: float) -> int:
    """The status that was answered; without a key that is 401. Raises `GatewayUnavailable`.

    `timeout_seconds` is for the connection and again for the answer; looking up the name is bounded by neither.
    """
    try:
        with requests.Session() as session:
            # A double stands on this machine: no proxy that the environment names leads to it.
            session.trust_env = api_base is None
            url = f"{api_base or API_BASE}/v1/balance"
            with session.get(url, timeout=timeout_seconds, allow_redirects=False, stream=True) as answer:
                status = answer.status_code
    except requests.RequestException as error:
        said = type(error).__name__
        raise GatewayUnavailable(
            f"Stripe can't be reached: {said}", reason="connection", may_have_executed=False
        ) from error
    if status >= SERVER_ERROR:
        raise GatewayUnavailable(f"Stripe answers {status}", reason="server_error", may_have_executed=False)
    return status
