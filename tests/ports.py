"""Ports for programs that are started later, which nobody else gets meanwhile."""

import socket

from instafeed.dev.embedded import reserve_ports

_AT_ONCE = 31

_left: list[int] = []
_keepers: list[socket.socket] = []


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, each given out once: not to other processes of the tests either, until this one ends.

    Below those that outgoing connections get.
    """
    while len(_left) < count:
        keeper, ports = reserve_ports(_AT_ONCE, first=None)
        _keepers.append(keeper)
        _left.extend(ports)
    return [_left.pop() for _ in range(count)]


def free_port() -> int:
    """One of them."""
    [port] = free_ports(1)
    return port
