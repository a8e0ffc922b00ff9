"""`python -m bench.clients`: so many connections that each ask again as soon as they are answered.

A process of its own, without a library for HTTP: what it costs is taken from what it measures.
"""

import json
import selectors
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.measure import percentile

READ_BYTES = 65_536
HEAD_ENDS = b"\r\n\r\n"
LENGTH = b"content-length: "


@dataclass
class _Connection:
    socket: socket.socket
    asked_at: float = 0.0
    answer: bytearray = field(default_factory=bytearray)


def run(
    port: int, requests: Sequence[bytes], connections: int, seconds: float, warm_up_seconds: float
) -> dict[str, float]:
    """Ask in turns for so long; requests a second, and milliseconds from each request to its whole answer."""
    opened = [_Connection(socket.create_connection(("127.0.0.1", port))) for _ in range(connections)]
    with selectors.DefaultSelector() as selector:
        number = 0
        for one in opened:
            one.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(one.socket, selectors.EVENT_READ, one)
            number = _ask(one, requests, number)
        began = time.perf_counter() + warm_up_seconds
        waits: list[float] = []
        bad = 0
        while (now := time.perf_counter()) < began + seconds:
            for key, _ in selector.select(1):
                one = key.data
                if not (status := _answered(one)):
                    continue
                now = time.perf_counter()
                if one.asked_at >= began:
                    waits.append((now - one.asked_at) * 1000)
                bad += status != b"200"
                number = _ask(one, requests, number)
    for one in opened:
        one.socket.close()
    return {
        "per_second": len(waits) / seconds,
        "p50_ms": percentile(waits, 0.5),
        "p99_ms": percentile(waits, 0.99),
        "max_ms": max(waits),
        "refused": bad,
    }


def _ask(one: _Connection, requests: Sequence[bytes], number: int) -> int:
    one.answer.clear()
    one.asked_at = time.perf_counter()
    one.socket.sendall(requests[number % len(requests)])
    return number + 1


def _answered(one: _Connection) -> bytes | None:
    """The status of the answer, once it is there as a whole."""
    read = one.socket.recv(READ_BYTES)
    if not read:
        raise RuntimeError("the server has closed a connection")
    one.answer += read
    head, found, body = bytes(one.answer).partition(HEAD_ENDS)
    if not found:
        return None
    at = head.lower().index(LENGTH) + len(LENGTH)
    length = int(head[at:].partition(b"\r\n")[0])
    return head[9:12] if len(body) >= length else None


def main() -> None:
    """Read what to ask from standard input, and write the figures to standard output."""
    said = json.load(sys.stdin)
    requests = [one.encode() for one in said.pop("requests")]
    json.dump(run(requests=requests, **said), sys.stdout)


if __name__ == "__main__":
    main()
