"""
Writing at once instead of in the reactor's next turn.

Twisted's ``write`` asks epoll for leave, writes in the next turn and tells epoll that it is done: three
system calls more than the one that nearly always does it.
"""

from typing import Any

from twisted.internet.tcp import Connection
from twisted.protocols.tls import TLSMemoryBIOProtocol


def write_at_once(transport: Any) -> None:
    """
    Have a TCP transport's ``write`` try the socket first, where nothing is in its buffer.

    Other transports stay as they are. What the socket does not take goes the usual way, and so does what
    finds the connection lost.
    """
    if not isinstance(transport, Connection):
        return
    queue = transport.write

    def write(data: bytes) -> None:
        if transport.connected and not transport._tempDataBuffer and not transport.dataBuffer:
            sent = transport.writeSomeData(data)
            if sent == len(data):
                return
            if type(sent) is int and sent > 0:
                data = data[sent:]
        queue(data)

    transport.write = write  # type: ignore[method-assign]


class PromptTLS(TLSMemoryBIOProtocol):
    """TLS whose records are written at once, and that gathers no small writes until the next turn either."""

    def makeConnection(self, transport: Any) -> None:
        write_at_once(transport)
        super().makeConnection(transport)
