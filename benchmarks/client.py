"""A client that speaks just enough XMPP to put load on a server: no TLS, PLAIN, text in and out."""

import asyncio
import base64
import re

DOMAIN = "localhost"
PASSWORD = "benchmark"
_OPEN = (
    f"<?xml version='1.0'?><stream:stream to='{DOMAIN}' version='1.0' xmlns='jabber:client'"
    " xmlns:stream='http://etherx.jabber.org/streams'>"
)
_IQ = re.compile(rb"<iq\b[^>]*?(?:/>|>.*?</iq>)", re.DOTALL)
_IS_ERROR = re.compile(rb"""<[^>]*\btype=['"]error['"]""")
_BIND = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>bench</resource></bind>"
_CREATE = "<pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='{node}' type='push'/></pubsub>"
_ENABLE = (
    "<enable xmlns='urn:xmpp:push:0' jid='pubsub.{domain}' node='{node}'>"
    "<x xmlns='jabber:x:data' type='submit'>"
    "<field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>"
    "<field var='service'><value>{service}</value></field>"
    "<field var='device_id'><value>{token}</value></field>"
    "<field var='mode'><value>prod</value></field>"
    "<field var='click_action'><value>open.chat</value></field></x></enable>"
)


class RefusedByServer(Exception):
    """The server answered something else than success; the text is its answer."""


class Client:
    """
    A bound session.

    Attributes:
        errors: Stanza errors that came while `watch` ran.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.errors = 0

    @classmethod
    async def login(cls, host: str, port: int, user: str) -> "Client":
        client = cls(*await asyncio.open_connection(host, port))
        await client._open()
        secret = base64.b64encode(f"\0{user}\0{PASSWORD}".encode()).decode()
        client._write(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>")
        await client._read(re.compile(rb"<success\b[^>]*?(?:/>|>.*?</success>)", re.DOTALL))
        await client._open()
        await client.ask("set", _BIND)
        return client

    async def enable_push(self, node: str, token: str, service: str = "fcm") -> None:
        """Create the node and enable it, as the tutorial's phone does."""
        await self.ask("set", _CREATE.format(node=node), to=f"pubsub.{DOMAIN}")
        await self.ask("set", _ENABLE.format(domain=DOMAIN, node=node, token=token, service=service))

    async def ask(self, kind: str, payload: str, to: str = "") -> bytes:
        """The answer to an iq; `RefusedByServer` for an error."""
        address = f" to='{to}'" if to else ""
        self._write(f"<iq type='{kind}' id='ask'{address}>{payload}</iq>")
        return await self._read(_IQ)

    async def watch(self) -> None:
        """Take what comes until the connection ends, and count the errors in it."""
        while data := await self._reader.read(65536):
            self.errors += len(_IS_ERROR.findall(data))

    async def close(self) -> None:
        self._write("</stream:stream>")
        self.writer.close()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)

    async def _open(self) -> None:
        self._write(_OPEN)
        await self._read(re.compile(rb"</stream:features>|<stream:features/>"))

    def _write(self, text: str) -> None:
        self.writer.write(text.encode())

    async def _read(self, wanted: re.Pattern[bytes]) -> bytes:
        """What the server says up to ``wanted``, which is taken out of the stream."""
        said = b""
        while not (found := wanted.search(said)):
            data = await asyncio.wait_for(self._reader.read(65536), 30)
            said += data
            if not data or b"<failure" in said or b"<stream:error" in said:
                raise RefusedByServer(said.decode(errors="replace"))
        if _IS_ERROR.match(found[0]):
            raise RefusedByServer(found[0].decode(errors="replace"))
        return found[0]


def chat_message(number: int, to: str) -> bytes:
    """A message of some 400 bytes, as a mobile client writes it; the body begins with its number."""
    body = (
        f"#{number} Wherefore art thou Romeo? Deny thy father and refuse thy name, or, if thou wilt not,"
        " be but sworn my love, and I'll no longer be a Capulet."
    )
    return (
        f"<message to='{to}' type='chat' id='m{number}'><body>{body}</body>"
        f"<origin-id xmlns='urn:xmpp:sid:0' id='m{number}'/><active xmlns='http://jabber.org/protocol/chatstates'/>"
        "<request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/></message>"
    ).encode()
