"""RabbitMQ over TLS, whose certificate must be for the host in the address, as that of Redis must.

py-amqp looks who signed a certificate, and not for which host it is: whoever has one for any name could stand between.
kombu reads the same options from an `amqps://` address as from a `rediss://` one, and hands them on by names that
py-amqp does not know.
"""

import ssl
from collections.abc import Mapping
from typing import Any

import kombu.connection
import kombu.transport
from amqp.transport import to_host_port
from kombu.transport import pyamqp

# kombu carries no types.
_Connection: Any = kombu.connection.Connection
_AmqpConnection: Any = pyamqp.Connection
_Transport: Any = pyamqp.SSLTransport

CHECKED = f"{__name__}:CheckedTransport"


def install() -> None:
    """Let `amqps://` mean this transport in this process. The SDK does not: an application may use kombu otherwise."""
    kombu.transport.TRANSPORT_ALIASES["amqps"] = CHECKED


class BrokerConnection(_Connection):  # type: ignore[misc]
    """A connection to which `amqps://` means this transport, whatever it means to others."""

    def get_transport_cls(self) -> Any:
        """Asked again for each address of a list."""
        if self.transport_cls == "amqps":
            return kombu.transport.get_transport_cls(CHECKED)
        return super().get_transport_cls()


class CheckedConnection(_AmqpConnection):  # type: ignore[misc]
    """A connection that tells py-amqp for which host a certificate has to be."""

    def __init__(self, host: str, *, ssl: Any = True, **options: Any) -> None:
        super().__init__(host, ssl=as_understood(host, ssl if isinstance(ssl, Mapping) else {}), **options)


class CheckedTransport(_Transport):  # type: ignore[misc]
    """kombu's transport for `amqps://`, with such connections."""

    Connection = CheckedConnection


def as_understood(host: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Options of an address, `ssl_ca_certs` and its like, by the names of py-amqp.

    >>> as_understood("broker.example:5671", {"ssl_ca_certs": "ca.pem"})["server_hostname"]
    'broker.example'
    >>> "server_hostname" in as_understood("broker.example:5671", {"ssl_check_hostname": False})
    False
    """
    given = {name.removeprefix("ssl_"): value for name, value in said.items()}
    is_checked = given.pop("check_hostname", True)
    given.setdefault("cert_reqs", ssl.CERT_REQUIRED)
    if is_checked and given["cert_reqs"] != ssl.CERT_NONE:
        given["server_hostname"], _ = to_host_port(host)
    return given
