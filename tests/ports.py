"""A port for a server that is started later."""

import random
import socket

#: Below those that Linux gives to whoever connects: with one of these, somebody else's connection may be there first.
PORTS = range(20_000, 32_000)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    while True:
        port = random.SystemRandom().choice(PORTS)  # the tests' own numbers are sown alike in each test
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
