"""
Ad-hoc commands on the wire (XEP-0050): registration, at a pubsub host of this process or as a component.

A command asks for one form at the most, so all that a session has to remember is that its form was shown, to
whom and until when. The session's id says that itself, signed: nothing is kept for those who begin and never
finish, and strangers cannot crowd out others.
"""

from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest, new
from random import Random, SystemRandom
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.words.protocols.jabber.error import StanzaError
from twisted.words.xish.domish import Element
from zope.interface import implementer

from xmpppush._wokkel import DiscoFeature, DiscoIdentity, DiscoItem, IDisco, IQHandlerMixin, XMPPHandler
from xmpppush.apps.rules import Command, form_kind_of, outcome, read, status_of
from xmpppush.apps.service import Apps
from xmpppush.errors import BadStanza
from xmpppush.jids import JID, parse_jid
from xmpppush.xep.commands import (
    CommandRequest,
    asking,
    bad_payload,
    canceled,
    command_in,
    completed,
    refusal,
)
from xmpppush.xep.conditions import to_stanza_error
from xmpppush.xep.dataforms import Form
from xmpppush.xep.namespaces import COMMANDS, DATA_FORMS

LASTS = 600  # seconds that a form may be filled in
MAX_ENDED = 10_000


class Sessions:
    """
    Ids of sessions that say themselves whose they are and how long they last.

    Args:
        key: A secret of this process: after a restart sessions begin anew.
    """

    def __init__(self, key: bytes, clock: IReactorTime) -> None:
        self._key = key
        self._clock = clock
        self._serial = 0
        # Those that were completed or cancelled, until nobody can use them anyhow.
        self._ended: OrderedDict[str, None] = OrderedDict()

    def begin(self, *whose: str) -> str:
        """A new id."""
        self._serial += 1
        head = f"{int(self._clock.seconds()) + LASTS}-{self._serial}"
        return f"{head}-{self._sign(head, whose)}"

    def check(self, session: str, *whose: str) -> None:
        """
        Raises:
            StanzaError: ``bad-sessionid`` of one that is not theirs or is over; ``session-expired``.
        """
        head, _, signature = session.rpartition("-")
        if session in self._ended or not compare_digest(signature.encode(), self._sign(head, whose).encode()):
            raise refusal("bad-request", "bad-sessionid", "modify")
        if int(head.partition("-")[0]) < self._clock.seconds():
            raise refusal("not-allowed", "session-expired", "cancel")

    def end(self, session: str) -> None:
        """It cannot be used any more."""
        self._ended[session] = None
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)

    def _sign(self, head: str, whose: tuple[str, ...]) -> str:
        return new(self._key, "\0".join((head, *whose)).encode(), sha256).hexdigest()[:32]


@implementer(IDisco)
class RegistrationHandler(XMPPHandler, IQHandlerMixin):
    """
    Registers and unregisters devices.

    Attributes:
        disco_nodes: The nodes of service discovery that are no pubsub nodes.
    """

    iqHandlers = {f"/iq/command[@xmlns='{COMMANDS}']": "on_command"}

    def __init__(self, apps: Apps, clock: IReactorTime, host: str = "", random: Random | None = None) -> None:
        """
        Args:
            host: The JID that it answers for.
        """
        super().__init__()
        self._apps = apps
        self._sessions = Sessions((random or SystemRandom()).randbytes(32), clock)
        self.disco_nodes = frozenset((COMMANDS, *apps.commands_on(host)))

    def connectionInitialized(self) -> None:
        self.xmlstream.addObserver(
            f"/iq[@type='get' or @type='set']/command[@xmlns='{COMMANDS}']", self.handleRequest
        )

    def on_command(self, iq: Element) -> "Deferred[Element]":
        return Deferred.fromCoroutine(self._execute(iq)).addErrback(to_stanza_error)

    async def _execute(self, iq: Element) -> Element:
        if iq.getAttribute("type") != "set":
            raise BadStanza("a command is executed by an iq of type set")
        requester, to = parse_jid(iq.getAttribute("from", "")), parse_jid(iq.getAttribute("to", ""))
        if to.user or to.resource:
            raise StanzaError("service-unavailable")
        request = command_in(iq)
        command = self._apps.commands_on(to.host).get(request.node)
        if command is None:
            raise StanzaError("item-not-found")
        if request.session:
            return await self._go_on(requester, to.host, command, request)
        if request.action == "cancel":
            raise refusal("bad-request", "bad-sessionid", "modify")
        if request.action in ("prev", "next"):
            raise refusal("bad-request", "bad-action", "modify")
        session = self._sessions.begin(requester.full(), to.host, command.node)
        if request.form is None:
            if request.action == "complete":
                raise bad_payload()
            return asking(command.node, session, command.title, command.form_type, command.fields())
        return await self._complete(requester, to.host, command, request.form, session)

    async def _go_on(self, requester: JID, host: str, command: Command, request: CommandRequest) -> Element:
        self._sessions.check(request.session, requester.full(), host, command.node)
        if request.action == "cancel":
            self._sessions.end(request.session)
            return canceled(command.node, request.session)
        # In a session execute is what the form's actions say it is: complete (section 3.4).
        if request.action not in ("execute", "complete"):
            raise refusal("bad-request", "bad-action", "modify")
        if request.form is None:
            raise bad_payload()
        return await self._complete(requester, host, command, request.form, request.session)

    async def _complete(
        self, requester: JID, host: str, command: Command, form: Form, session: str
    ) -> Element:
        asked = read(command, form)
        device = None
        if command.registers:
            device = await self._apps.register(requester, host, command, asked)
        else:
            await self._apps.unregister(requester, host, command, asked)
        self._sessions.end(session)  # an error ends none: whoever mistyped may try again
        return completed(
            command.node,
            session,
            form_kind_of(command),
            outcome(command, host, asked, device),
            status_of(command),
        )

    # Service discovery (XEP-0050 sections 2.1 and 2.2)

    def getDiscoInfo(self, requestor: JID, target: JID, nodeIdentifier: str = "") -> "Deferred[list[Any]]":
        if not nodeIdentifier:
            return succeed([DiscoFeature(COMMANDS)])
        if nodeIdentifier == COMMANDS:
            return succeed([DiscoIdentity("automation", "command-list", "Commands"), DiscoFeature(COMMANDS)])
        command = self._apps.commands_on(target.host).get(nodeIdentifier)
        if command is None:
            return succeed([])
        identity = DiscoIdentity("automation", "command-node", command.title)
        return succeed([identity, DiscoFeature(COMMANDS), DiscoFeature(DATA_FORMS)])

    def getDiscoItems(self, requestor: JID, target: JID, nodeIdentifier: str = "") -> "Deferred[list[Any]]":
        if nodeIdentifier != COMMANDS:
            return succeed([])
        commands = self._apps.commands_on(target.host).values()
        return succeed([DiscoItem(JID(tuple=(None, target.host, None)), c.node, c.title) for c in commands])


def handlers_for(apps: Apps | None, clock: IReactorTime) -> Callable[[str], list[XMPPHandler]]:
    """What a host needs beside the handlers of pubsub: nothing where no app has commands."""

    def handlers(host: str) -> list[XMPPHandler]:
        if apps is None or not apps.commands_on(host):
            return []
        return [RegistrationHandler(apps, clock, host)]

    return handlers
