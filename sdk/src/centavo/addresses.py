"""Addresses of brokers, as kombu is told them."""

from urllib.parse import parse_qsl

_CHECKED = "ssl_cert_reqs"
_OVER_TLS = ("rediss", "amqps")


def verified(broker_url: str) -> str:
    """The same broker, whose certificate is checked unless its address says otherwise.

    kombu takes any certificate where `rediss://` does not say which it wants. In a list each address says for itself;
    kombu would have those that say nothing be as the first is.

    >>> verified("rediss://broker.example:6379/0")
    'rediss://broker.example:6379/0?ssl_cert_reqs=required'
    >>> verified("rediss://broker.example:6379/0?ssl_cert_reqs=none")
    'rediss://broker.example:6379/0?ssl_cert_reqs=none'
    """
    return ";".join(map(_verified, broker_url.split(";")))


def _verified(address: str) -> str:
    scheme, _, rest = address.partition("://")
    rest, _, _ = rest.partition("#")  # kombu reads nothing behind it
    if scheme.strip().lower() not in _OVER_TLS or _CHECKED in dict(parse_qsl(rest.partition("?")[2])):
        return address
    return f"{scheme}://{rest}{'&' if '?' in rest else '?'}{_CHECKED}=required"
