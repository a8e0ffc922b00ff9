"""Reading the body of a request, no further than is allowed."""

import asyncio

from fastapi import Request

from api.errors import BodyTooLarge, BodyTooSlow

#: Whoever sends a body more slowly holds memory that others could use.
SECONDS_MAX = 10
#: Under which name of a request's scope its body stands, once it was read within its bounds.
BODY = "centavo.body"


async def bounded_body(request: Request, bytes_max: int) -> bytes:
    """The raw body. Raises `BodyTooLarge` as soon as it is known, by what was announced or by what came."""
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > bytes_max:
        raise _too_large(bytes_max)
    try:
        async with asyncio.timeout(SECONDS_MAX):
            return await _read(request, bytes_max)
    except TimeoutError:
        raise BodyTooSlow(f"the body did not come within {SECONDS_MAX} s") from None


async def _read(request: Request, bytes_max: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
    return bytes(body)


def _too_large(bytes_max: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {bytes_max} bytes")
