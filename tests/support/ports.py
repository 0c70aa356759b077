"""Ports that stay ours while the server behind them is down."""

from __future__ import annotations

import random
import socket
import sys

__all__ = ["HOST", "reserve_port"]

HOST = "127.0.0.1"

# Below the range from which the kernel picks ports for outgoing connections (32768 and up), so
# that no client can sit on the port of a server that is just being restarted.
_RANGE = range(11_000, 22_000)


def reserve_port(*, for_server: bool) -> tuple[socket.socket, int]:
    """Bind a free port of the loopback interface and keep it from everybody else.

    The port is bound without SO_REUSEADDR, which the kernel refuses if anyone else holds it.
    The option is set afterwards: from then on a program that sets it too (as Redis does) can
    listen there, as often as it likes, while the returned socket is open.

    Args:
        for_server: True if another process shall listen on the port; False if the caller
            will call ``listen`` on the returned socket.

    Returns:
        The socket that holds the port, and the port.
    """
    ports = list(_RANGE)
    random.SystemRandom().shuffle(ports)
    for port in ports:
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            holder.bind((HOST, port))
        except OSError:
            holder.close()
            continue
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if for_server and sys.platform != "linux":
            holder.close()  # Only Linux lets two sockets share a port in this way.
        return holder, port
    raise OSError(f"no free port from {_RANGE.start} to {_RANGE.stop - 1}")
