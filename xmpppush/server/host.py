"""
The XMPP server behind its connections: sessions, presence, messages, requests.

Reading and checking a stanza is the connection's work (``c2s.py``), deciding is ``rules.py``'s; here
is what is done about it.
"""

import re
import secrets
from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.words.protocols.jabber.error import StanzaError
from twisted.words.xish.domish import Element
from zope.interface import implementer

from xmpppush.coroutines import start
from xmpppush.errors import LimitReached, OfflineFull, StorageError
from xmpppush.interfaces import IAccountStore, IMessageStore, IPushDecider, ISession, ISessionHost
from xmpppush.jids import JID, parse_jid
from xmpppush.model import Delivery
from xmpppush.server.handlers import DomainHandlers
from xmpppush.server.offline import Held, OfflineMessages
from xmpppush.server.resources import Resources
from xmpppush.server.router import Router
from xmpppush.server.rules import Otherwise, is_present, is_worth_storing, message_type, plan_message
from xmpppush.xep.conditions import error_reply
from xmpppush.xep.xml import to_xml

MAX_SESSIONS = 100  # of one account; more is a client that leaks connections

_PRIORITY = re.compile(r"[+-]?[0-9]{1,3}")


@implementer(ISessionHost)
class XMPPServer:
    """
    The served domains.

    Args:
        push: What decides on notifications, ``None`` without ``[mod_push]``.
        offline_limit: ``[limits] offline_messages_per_user``.
    """

    _log = Logger()

    def __init__(
        self,
        domains: Sequence[str],
        router: Router,
        resources: Resources,
        handlers: DomainHandlers,
        accounts: IAccountStore,
        messages: IMessageStore,
        push: IPushDecider | None,
        clock: IReactorTime,
        offline_limit: int = 1000,
    ) -> None:
        self.domains = frozenset(domains)
        self.resources = resources
        self._router = router
        self._handlers = handlers
        self._accounts = accounts
        self._messages = messages
        self._push = push
        self._clock = clock
        self._offline_limit = offline_limit
        self._offline = OfflineMessages(messages, clock, self._again)
        for domain in self.domains:
            router.routes[domain] = self

    # The connection's side: ISessionHost.

    def bind(self, session: ISession, account: str, resource: str | None) -> str:
        if resource is None:
            resource = secrets.token_urlsafe(9)
        else:
            resource = parse_jid(f"{account}/{resource}").resource
        assert resource is not None
        sessions = self.resources.of(account)
        if len(sessions) >= MAX_SESSIONS and resource not in sessions:
            raise LimitReached("too many sessions of this account")
        before = sessions.get(resource)
        if before is not None:
            # RFC 6120 section 7.7.2.2: most likely it is the same client, back before its old
            # connection was found to be dead.
            self.unbind(before)
            before.close("conflict", "Replaced by a new connection")
        self.resources.add(account, resource, session)
        return resource

    def unbind(self, session: ISession) -> None:
        if not self.resources.remove(session.account, session.resource, session):
            return
        was_available = session.priority is not None
        self._offline.gone(session)
        if was_available:
            gone = Element((None, "presence"))
            gone["from"] = session.full
            gone["type"] = "unavailable"
            self._broadcast(session, gone)

    def stanza(self, session: ISession, stanza: Element) -> None:
        if stanza.name == "presence" and "to" not in stanza.attributes:
            self._own_presence(session, stanza)
            return
        if "to" not in stanza.attributes:
            # RFC 6120 section 10.3: meant for the sender's own account.
            stanza["to"] = session.account
        self._router.route(stanza)

    # The router's side.

    def send(self, stanza: Element) -> None:
        """A stanza for a served domain or somebody there."""
        to = parse_jid(stanza["to"])
        if stanza.name == "message":
            self._message(stanza, to)
        elif stanza.name == "iq":
            self._iq(stanza, to)
        elif stanza.name == "presence":
            self._directed_presence(stanza, to)

    def _iq(self, stanza: Element, to: JID) -> None:
        if to.resource is None or to.user is None:
            self._handlers.handle(stanza)
            return
        session = self.resources.get(to.userhost(), to.resource)
        if session is not None:
            session.send(stanza)
        else:  # RFC 6121 section 8.5.3.2.3
            self._answer(stanza, StanzaError("service-unavailable"))

    def _answer(self, stanza: Element, error: Exception) -> None:
        reply = error_reply(stanza, error)
        if reply is not None:
            self._router.route(reply)

    # Presence: no subscriptions yet, so it concerns the account's own resources.

    def _own_presence(self, session: ISession, stanza: Element) -> None:
        kind = stanza.attributes.get("type")
        if kind == "unavailable":
            if session.priority is not None:
                session.priority = session.presence = None
                self._broadcast(session, stanza)
            return
        if kind is not None:
            return  # subscriptions without an address, errors: nothing to do (RFC 6121 section 4.3)
        try:
            priority = _priority_of(stanza)
        except ValueError:
            self._answer(_addressed(stanza, session.account), StanzaError("bad-request"))
            return
        was_present, was_available = is_present(session), session.priority is not None
        session.priority, session.presence = priority, stanza
        self._broadcast(session, stanza)
        if not was_available:
            for other in self.resources.of(session.account).values():
                if other is not session and other.presence is not None:
                    session.send(_addressed(other.presence, session.full))
        if is_present(session) and not was_present:
            self._offline.flush(session)

    def _broadcast(self, session: ISession, stanza: Element) -> None:
        """To all available resources of the account, the sender's own included (RFC 6121 section 4.2.2)."""
        for other in list(self.resources.of(session.account).values()):
            if other.priority is not None:
                other.send(_addressed(stanza, other.full))

    def _directed_presence(self, stanza: Element, to: JID) -> None:
        if to.user is None or stanza.attributes.get("type") not in (None, "unavailable", "error"):
            return  # subscriptions come with the roster's
        sessions = self.resources.of(to.userhost())
        if to.resource is not None:
            targets = [sessions[to.resource]] if to.resource in sessions else []
        else:
            targets = [session for session in sessions.values() if session.priority is not None]
        for target in targets:
            target.send(stanza)

    # Messages: the path whose budget DESIGN.md counts.

    def _message(self, stanza: Element, to: JID) -> None:
        if to.user is None:
            self._answer(stanza, StanzaError("service-unavailable"))
            return
        start(self._deliver(stanza, to), self._failed, stanza)

    def _again(self, held: Held) -> None:
        """The session that it was held for is gone: it goes where it would go now."""
        to = parse_jid(held.stanza["to"])
        start(self._deliver(held.stanza, to, held.notified), self._failed, held.stanza)

    async def _deliver(
        self, stanza: Element, to: JID, notified: frozenset[tuple[str, str]] = frozenset()
    ) -> None:
        """
        Args:
            notified: Registrations that were told of it before.
        """
        account = to.userhost()
        sessions = self.resources.of(account)
        plan = plan_message(message_type(stanza), to.resource, sessions)
        held = None
        if plan.sessions:
            xml = to_xml(stanza)
            for session in plan.sessions:
                held = self._offline.send(session, stanza, xml) or held
        elif plan.otherwise is not Otherwise.STORE:
            if plan.otherwise is Otherwise.BOUNCE:
                self._answer(stanza, StanzaError("service-unavailable"))
            return
        # Somebody has it: told of an error, the sender would only send it again.
        failed = self._push_failed if plan.sessions else self._failed
        deliveries: Sequence[Delivery] = ()
        if self._push is not None:
            try:
                deliveries = await self._push.deliveries_for(account, stanza, sessions)
            except StorageError:
                failed(Failure(), stanza)
                return
            except Exception:
                # A plugin's fault, perhaps; the message is none the worse for it.
                self._push_failed(Failure(), stanza)
        if notified:
            deliveries = [
                delivery for delivery in deliveries if (delivery.pubsub, delivery.node) not in notified
            ]
        if held is not None:
            held.elsewhere = len(plan.sessions) > 1
            held.notified = notified.union((delivery.pubsub, delivery.node) for delivery in deliveries)
        keep = not plan.sessions
        # Whoever has a registration is somebody; only for the others is the account looked up.
        if keep and not deliveries and not sessions and await self._accounts.get(account) is None:
            self._answer(stanza, StanzaError("service-unavailable"))
            return
        offline = None
        if keep and is_worth_storing(stanza):
            offline = self._offline.message_for(account, to.host, stanza)
        if offline is None and not deliveries:
            return
        # From here on it waits for the disk.
        kept = self._messages.keep(offline, deliveries, self._offline_limit)
        kept.addCallbacks(self._kept, failed, errbackArgs=(stanza,)).addErrback(self._push_failed, stanza)

    def _kept(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._push.enqueue(delivery)  # type: ignore[union-attr]

    def _push_failed(self, failure: Failure, stanza: Element) -> None:
        account = stanza["to"].partition("/")[0]
        if failure.check(StorageError):
            self._log.warn("push for {account} is lost: {reason}", account=account, reason=str(failure.value))
        else:
            self._log.failure("push for {account} failed", failure=failure, account=account)

    def _failed(self, failure: Failure, stanza: Element) -> None:
        error = failure.value
        if isinstance(error, OfflineFull):  # RFC 6121 section 8.5.2.2.1
            self._answer(stanza, StanzaError("service-unavailable"))
        elif isinstance(error, StorageError):  # said once by the storage
            self._answer(stanza, error)
        else:
            self._log.failure("a message could not be handled", failure=failure)
            self._answer(stanza, StanzaError("internal-server-error"))


def _priority_of(presence: Element) -> int:
    """-128 to 127, 0 where there is none (RFC 6121 section 4.7.2.3); raises ValueError."""
    for child in presence.elements():
        if child.name == "priority" and child.uri is None:
            text = str(child).strip()
            if text and not _PRIORITY.fullmatch(text):  # int() takes more than xs:byte does
                raise ValueError("priority")
            priority = int(text or "0")
            if not -128 <= priority <= 127:
                raise ValueError("priority")
            return priority
    return 0


def _addressed(stanza: Element, to: str) -> Element:
    """The same stanza to another address; the children are shared, nobody changes them."""
    copy = Element((stanza.uri, stanza.name), attribs={**stanza.attributes, "to": to})
    copy.localPrefixes = stanza.localPrefixes
    copy.children = stanza.children
    return copy
