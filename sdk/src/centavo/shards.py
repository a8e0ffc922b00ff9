"""Shards: usage may travel through several queues, each customer's through one of them.

Workers that take different shards do not wait for one another's customers. Nothing else hangs on it: an event in
any other shard, or in none, is charged all the same, so their number may change at any time.

`docs/wire-format.md` says the same in words, for producers in other languages.
"""

from zlib import crc32

from pydantic_core import from_json

SHARDS_MAX = 64


def shard_of(tenant_id: str, customer_id: str, shards: int) -> int:
    """The shard of a customer, 0 ≤ s < `shards`: the CRC-32 of both ids with a NUL between them, modulo `shards`.

    >>> shard_of("acme", "ana", 8), shard_of("acme", "bia", 8), shard_of("acme", "ana", 3)
    (5, 3, 0)
    """
    return crc32(f"{tenant_id}\0{customer_id}".encode()) % shards


def shard_on_wire(event: bytes, shards: int) -> int:
    """The shard of an event that is encoded already: by what it says, under whatever number it was encoded."""
    if shards < 2:
        return 0
    try:
        said = from_json(event)
        return shard_of(said["tenant_id"], said["customer_id"], shards)
    except (ValueError, LookupError, TypeError):
        return 0  # no event at all: the worker that gets it parks it


def queue_of(queue: str, shard: int, shards: int) -> str:
    """The queue that this shard of `queue` is; `queue` itself where there are no shards."""
    return f"{queue}.{shard}" if shards > 1 else queue
