"""A phone on slixmpp, a client that is not ours, sending exactly the stanzas it is told."""

import asyncio
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import slixmpp


class Phone(slixmpp.ClientXMPP):
    """
    A client over STARTTLS that verifies the server's certificate.

    Attributes:
        messages: Body of each message it got, in order.
    """

    def __init__(self, jid: str, password: str, address: tuple[str, int], ca_file: Path) -> None:
        super().__init__(jid, password)
        self.messages: list[str] = []
        self.address = address
        self.ca_certs = str(ca_file)
        self.enable_direct_tls = False
        self.started: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.arrived = asyncio.Event()
        self.add_event_handler("session_start", lambda _: self._settle(True))
        self.add_event_handler("failed_all_auth", lambda _: self._settle(False))
        self.add_event_handler("message", self._got_message)

    def _settle(self, result: bool) -> None:
        if not self.started.done():
            self.started.set_result(result)

    def _got_message(self, message: Any) -> None:
        self.messages.append(message["body"])
        self.arrived.set()

    async def log_in(self, present: bool = True) -> bool:
        """Returns whether the server let it in."""
        self.connect(*self.address)
        result = await asyncio.wait_for(self.started, 15)
        if result and present:
            self.send_presence()
        return result

    async def ask(self, xml: str) -> ElementTree.Element:
        """Send an iq as it is written; returns the answer, an error included."""
        iq = self.Iq(xml=with_namespace(ElementTree.fromstring(xml)))  # noqa: S314 - the test's own
        try:
            reply = await iq.send(timeout=15)
        except slixmpp.exceptions.IqError as error:
            reply = error.iq
        answer: ElementTree.Element = reply.xml
        return answer

    async def wait_for_messages(self, count: int) -> list[str]:
        while len(self.messages) < count:
            self.arrived.clear()
            await asyncio.wait_for(self.arrived.wait(), 15)
        return self.messages

    async def log_out(self) -> None:
        """An orderly end: stream and connection are closed."""
        await self.disconnect()


def with_namespace(element: ElementTree.Element) -> ElementTree.Element:
    """A stanza written without a namespace is one of ``jabber:client``."""
    for child in element.iter():
        if not child.tag.startswith("{"):
            child.tag = f"{{jabber:client}}{child.tag}"
    return element
