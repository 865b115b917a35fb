"""Find free loopback ports."""

import random
import socket
from contextlib import suppress

# Below the ephemeral ports of Linux, so that a port stays free while its container restarts.
FIXED_PORTS = range(20000, 30000)


def free_port() -> int:
    """Return a free loopback port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def fixed_ports(number: int) -> list[int]:
    """Return free loopback ports that are not used for outgoing connections.

    Raises:
        RuntimeError: not enough ports of `FIXED_PORTS` are free.
    """
    found: list[int] = []
    for port in random.sample(FIXED_PORTS, len(FIXED_PORTS)):
        if len(found) == number:
            return found
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            found.append(port)
    raise RuntimeError(f"fewer than {number} of the ports {FIXED_PORTS} are free")
