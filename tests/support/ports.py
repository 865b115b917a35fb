"""Finds free loopback ports."""

import random
import socket
from contextlib import suppress

# Below the range that Linux uses for outgoing connections, so that a restarted container gets its port again.
FIXED_PORTS = range(20000, 30000)


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def fixed_ports(number: int) -> list[int]:
    """Return free loopback ports that outgoing connections never use.

    Raises:
        RuntimeError: fewer ports of `FIXED_PORTS` are free.
    """
    found: list[int] = []
    for port in random.sample(FIXED_PORTS, len(FIXED_PORTS)):
        if len(found) == number:
            return found
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            found.append(port)
    raise RuntimeError(f"fewer than {number} of the ports {FIXED_PORTS} are free")
