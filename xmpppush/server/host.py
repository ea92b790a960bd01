"""
The XMPP server behind its connections: sessions, presence, messages, requests.

Reading and checking a stanza is the connection's work (``c2s.py``), deciding is ``rules.py``'s; here
is what is done about it.
"""

import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.words.protocols.jabber.error import StanzaError
from twisted.words.xish.domish import Element
from zope.interface import implementer

from xmpppush.coroutines import start
from xmpppush.errors import LimitReached, OfflineFull, PushError, StorageError
from xmpppush.http.outage import QUIET
from xmpppush.interfaces import IAccountStore, IMessageStore, IPushDecider, ISession, ISessionHost
from xmpppush.jids import JID, parse_jid
from xmpppush.model import Delivery, OfflineMessage
from xmpppush.server.handed import Handed, HandedMessages
from xmpppush.server.handlers import DomainHandlers
from xmpppush.server.offline import Held, OfflineMessages, delayed
from xmpppush.server.requests import Requests
from xmpppush.server.resources import Resources
from xmpppush.server.router import Router
from xmpppush.server.rules import (
    Otherwise,
    is_copied,
    is_present,
    is_worth_storing,
    message_type,
    plan_message,
)
from xmpppush.server.sm import StreamManagement
from xmpppush.server.unstored import Unstored
from xmpppush.xep import namespaces as ns
from xmpppush.xep.conditions import error_reply
from xmpppush.xep.xml import relayed_xml

MAX_REMEMBERED = 10_000  # sessions that are over
MAX_DIRECTED = 500  # addresses that a session tells that it is there
MAX_SESSIONS = 100  # of one account; more is a client that leaks connections

_ANSWERS = ("result", "error")
_PRIORITY = re.compile(r"[+-]?[0-9]{1,3}")


@implementer(ISessionHost)
class XMPPServer(Service):
    """
    The served domains. Stopped before the listeners, it makes no pushes for clients that it disconnects.

    Args:
        push: What decides on notifications, ``None`` without ``[mod_push]``.
        offline_limit: ``[limits] offline_messages_per_user``.
        ack_timeout: ``[c2s] ack_timeout``: so long a client that lost its session has to come back before
            there is a push for what that left behind.
        requests: Of the served domains, ``None`` where they make none.
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
        ack_timeout: float = 60.0,
        requests: Requests | None = None,
    ) -> None:
        self.setName("sessions")
        self.domains = frozenset(domains)
        self.resources = resources
        self._router = router
        self._handlers = handlers
        self._accounts = accounts
        self._messages = messages
        self._push = push
        self._clock = clock
        self._offline_limit = offline_limit
        self._ack_timeout = ack_timeout
        self._requests = requests
        self._stopping = False
        self._recovery: Any = None
        self._handed = HandedMessages(messages, resources, push, clock)
        self._offline = OfflineMessages(messages, clock, self._again, self._handed)
        self._unstored = Unstored(messages, clock, self._enqueue, self._dropped)
        self._quiet_until = float("-inf")
        self._resumable: dict[str, Any] = {}
        # Sessions that are over, by their id: account and counters, for who resumes too late.
        self._over: dict[str, tuple[str, StreamManagement]] = {}
        # Session to bare JID to the address that it sent presence to.
        self._directed: dict[ISession, dict[str, str]] = {}
        for domain in self.domains:
            router.routes[domain] = self

    # The service.

    def startService(self) -> None:
        super().startService()
        if self._push is not None:
            # Clients that were connected before have the time to come back.
            self._recovery = self._clock.callLater(self._ack_timeout, self._handed.recover)

    def stopService(self) -> None:
        super().stopService()
        self._stopping = True
        if self._recovery is not None and self._recovery.active():
            self._recovery.cancel()
        self._handed.stop()
        self._unstored.stop()

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
            # connection was found to be dead. No push for what it fetches in a moment.
            self._end(before, self._ack_timeout)
            before.close("conflict", "Replaced by a new connection")
        self.resources.add(account, resource, session)
        return resource

    def unbind(self, session: ISession) -> None:
        self._end(session, 0.0)

    def _end(self, session: ISession, push_after: float) -> None:
        if not self.resources.remove(session.account, session.resource, session):
            return
        self._no_longer_resumable(session)
        held = self._offline.gone(session)
        left = session.end()
        if session.priority is not None or session in self._directed:
            gone = Element((None, "presence"))
            gone["from"] = session.full
            gone["type"] = "unavailable"
            if session.priority is not None:
                self._broadcast(session, gone)
            self._tell_directed(session, gone)
        if left or held:
            self._undelivered(session, left, held, push_after)

    def _undelivered(
        self, session: ISession, left: Sequence[Any], held: Sequence[Handed], push_after: float
    ) -> None:
        """What a session took along goes to others, to storage, or back (XEP-0198 section 4)."""
        messages = [what for what in left if isinstance(what, Handed)]
        due = self._handed.ended(session, [*messages, *held])
        self._unstored.changed([*messages, *held])
        if self._stopping:
            return
        for other in self.resources.of(session.account).values():
            if is_present(other):
                self._offline.flush(other)
                break
        if push_after:
            self._handed.push_later(push_after, due)
        else:
            self._handed.push(due)
        for what in left:
            if isinstance(what, Element):
                self._answer(what, StanzaError("service-unavailable"))

    def enabled(self, session: ISession) -> None:
        if session.sm.id:
            self._resumable[session.sm.id] = session

    def _no_longer_resumable(self, session: ISession) -> None:
        if session.managed and self._resumable.pop(session.sm.id, None) is not None:
            self._over[session.sm.id] = session.account, session.sm
            if len(self._over) > MAX_REMEMBERED:
                del self._over[next(iter(self._over))]

    def resumable(self, account: str, resumption_id: str) -> tuple[ISession | None, int | None]:
        session = self._resumable.get(resumption_id)
        if session is not None and session.account == account:
            return session, session.sm.handled
        owner, sm = self._over.get(resumption_id, ("", None))
        return None, sm.handled if sm is not None and owner == account else None

    def acknowledged(self, session: ISession, what: Sequence[object]) -> None:
        for each in what:
            if isinstance(each, Handed):
                self._handed.acknowledged(session, each)
        self._unstored.changed(what)

    def broken(self, session: ISession) -> None:
        session.hibernate()
        self._unstored.changed(session.unacknowledged())
        if self._push is not None and self._push.push_on_broken_stream:
            self._push_unacknowledged(session)

    def resumed(self, session: ISession) -> None:
        if self._push is not None and is_present(session):
            self._push.device_back(session.account, session.resource)

    def overdue(self, session: ISession) -> None:
        self._unstored.changed(session.unacknowledged())
        self._push_unacknowledged(session)

    def _push_unacknowledged(self, session: ISession) -> None:
        self._handed.push(what for what in session.unacknowledged() if isinstance(what, Handed))

    def stanza(self, session: ISession, stanza: Element) -> "Deferred[Any] | None":
        if stanza.name == "presence":
            if "to" not in stanza.attributes:
                self._own_presence(session, stanza)
                return None
            self._note_directed(session, stanza)
        if "to" not in stanza.attributes:
            # RFC 6120 section 10.3: meant for the sender's own account.
            stanza["to"] = session.account
        if stanza.name == "message":
            self._copy_sent(session, stanza)
        return self._router.route(stanza)

    # The router's side.

    def send(self, stanza: Element) -> "Deferred[Any] | None":
        """A stanza for a served domain or somebody there; returns as `ISessionHost.stanza`."""
        to = parse_jid(stanza["to"])
        if stanza.name == "message":
            return self._message(stanza, to)
        if stanza.name == "iq":
            self._iq(stanza, to)
        elif stanza.name == "presence":
            self._directed_presence(stanza, to)
        return None

    def _iq(self, stanza: Element, to: JID) -> None:
        if to.resource is None or to.user is None:
            if to.user is None and self._requests is not None and stanza.attributes.get("type") in _ANSWERS:
                self._requests.answered(stanza)
                return
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
            self._tell_directed(session, stanza)
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
            if self._push is not None:
                self._push.device_back(session.account, session.resource)
            self._offline.flush(session)

    def _broadcast(self, session: ISession, stanza: Element) -> None:
        """To all available resources of the account, the sender's own included (RFC 6121 section 4.2.2)."""
        for other in list(self.resources.of(session.account).values()):
            if other.priority is not None:
                other.send(_addressed(stanza, other.full))

    def _note_directed(self, session: ISession, stanza: Element) -> None:
        """Whom a session told that it is there, a chat room for one, has to learn when it is not any more."""
        kind, to = stanza.attributes.get("type"), parse_jid(stanza["to"])
        if kind is None:
            told = self._directed.setdefault(session, {})
            if len(told) < MAX_DIRECTED or to.userhost() in told:
                told[to.userhost()] = to.full()
        elif kind == "unavailable" and session in self._directed:
            self._directed[session].pop(to.userhost(), None)

    def _tell_directed(self, session: ISession, gone: Element) -> None:
        """RFC 6121 section 4.6.3."""
        for to in self._directed.pop(session, {}).values():
            if not self._stopping:
                self._router.route(_addressed(gone, to))

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

    def _message(self, stanza: Element, to: JID) -> "Deferred[Any] | None":
        if to.user is None:
            self._answer(stanza, StanzaError("service-unavailable"))
            return None
        return start(self._deliver(stanza, to), self._failed, stanza)

    def _again(self, held: Held) -> None:
        """The session that it was held for is gone: it goes where it would go now."""
        to = parse_jid(held.stanza["to"])
        start(self._deliver(held.stanza, to, held.notified, False), self._failed, held.stanza)

    async def _deliver(
        self, stanza: Element, to: JID, notified: frozenset[tuple[str, str]] = frozenset(), first: bool = True
    ) -> "Deferred[Any] | None":
        """
        Args:
            notified: Registrations that were told of it before.
            first: It was not tried before; other clients have no copies of it.

        Returns:
            What waits for the disk, if anything does.
        """
        account = to.userhost()
        sessions = self.resources.of(account)
        kind = message_type(stanza)
        plan = plan_message(kind, to.resource, sessions)
        held = handed = None
        if first and len(sessions) > 1:
            self._copy("received", account, stanza, plan.sessions)
        if plan.sessions:
            xml = relayed_xml(stanza)
            if kind in ("chat", "normal") and _is_any_managed(plan.sessions) and is_worth_storing(stanza):
                handed = self._handed.hand(account, xml, plan.sessions, self._offline.is_behind, notified)
            what = stanza if kind == "groupchat" else handed
            for session in plan.sessions:
                held = self._offline.send(session, stanza, xml, what) or held
        elif plan.otherwise is Otherwise.BOUNCE:
            self._answer(stanza, StanzaError("service-unavailable"))
            return None
        elif plan.otherwise is Otherwise.IGNORE and kind != "headline":
            # A headline may be an app server's word that a device is gone (XEP-0357 section 8).
            return None
        # Somebody has it: told of an error, the sender would only send it again.
        failed = self._push_failed if plan.sessions else self._failed
        deliveries: Sequence[Delivery] = ()
        if self._push is not None:
            try:
                deliveries = await self._push.deliveries_for(account, stanza, sessions, notified)
            except StorageError:
                failed(Failure(), stanza)
                if handed is None:
                    return None
            except Exception:
                # A plugin's fault, perhaps; the message is none the worse for it.
                self._push_failed(Failure(), stanza)
        if held is not None:
            held.elsewhere = len(plan.sessions) > 1
            held.notified = notified.union((delivery.pubsub, delivery.node) for delivery in deliveries)
        keep = not plan.sessions and plan.otherwise is Otherwise.STORE
        # Whoever has a registration is somebody; only for the others is the account looked up.
        if keep and not deliveries and not sessions and await self._accounts.get(account) is None:
            self._answer(stanza, StanzaError("service-unavailable"))
            return None
        if handed is not None:
            now = self._clock.seconds()
            due = self._handed.is_push_due(handed, notified)
            message = OfflineMessage(0, account, delayed(handed.xml, to.host, now), now, due)
            return self._handed.store(handed, message, deliveries).addErrback(
                self._not_handed, handed, plan.sessions, stanza, deliveries
            )
        offline = None
        if keep and is_worth_storing(stanza):
            offline = self._offline.message_for(account, to.host, stanza)
        if offline is None and not deliveries:
            return None
        # From here on it waits for the disk.
        kept: Deferred[Any] = self._messages.keep(offline, deliveries, self._offline_limit)
        # They raise nothing; an errback behind them would cost more than they do.
        return kept.addCallbacks(
            self._kept, self._not_kept, (stanza,), errbackArgs=(stanza, deliveries, failed)
        )

    # Copies for the account's other clients (XEP-0280). Nothing is stored of them.

    def _copy_sent(self, session: ISession, stanza: Element) -> None:
        # To oneself it is received once, and that is enough.
        if (
            len(self.resources.of(session.account)) > 1
            and parse_jid(stanza["to"]).userhost() != session.account
        ):
            self._copy("sent", session.account, stanza, (session,))

    def _copy(self, direction: str, account: str, stanza: Element, without: Sequence[ISession]) -> None:
        others = [
            session
            for session in self.resources.of(account).values()
            if session.carbons and session not in without and session.full != stanza.attributes.get("from")
        ]
        if others and is_copied(stanza, message_type(stanza)):
            forwarded = relayed_xml(stanza).replace("<message", f"<message xmlns='{ns.CLIENT}'", 1)
            for session in others:
                session.send_xml(
                    f"<message from={quoteattr(account)} to={quoteattr(session.full)} type='chat'>"
                    f"<{direction} xmlns='{ns.CARBONS}'><forwarded xmlns='{ns.FORWARD}'>{forwarded}"
                    f"</forwarded></{direction}></message>"
                )

    def _kept(self, deliveries: Sequence[Delivery], stanza: Element) -> None:
        try:
            self._enqueue(deliveries)
        except Exception:
            self._push_failed(Failure(), stanza)

    def _enqueue(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._push.enqueue(delivery)  # type: ignore[union-attr]

    def _not_kept(
        self,
        failure: Failure,
        stanza: Element,
        deliveries: Sequence[Delivery],
        failed: Callable[[Failure, Element], None],
    ) -> None:
        error = failure.value
        try:
            if deliveries and failed == self._push_failed and isinstance(error, StorageError):
                self._unstored.keep(deliveries)
                return
            if deliveries and isinstance(error, PushError):
                self._dropped(deliveries, error)
            failed(failure, stanza)
        except Exception:
            self._push_failed(Failure(), stanza)

    def _dropped(self, deliveries: Sequence[Delivery], error: Exception) -> None:
        self._push.dropped(deliveries, error)  # type: ignore[union-attr]

    def _not_handed(
        self,
        failure: Failure,
        handed: Handed,
        sessions: Sequence[ISession],
        stanza: Element,
        deliveries: Sequence[Delivery],
    ) -> "Deferred[None]":
        """The clients that are getting the message have it, perhaps; the disk has not."""
        certain = any(not session.managed for session in sessions)
        return self._unstored.hold(failure, handed, certain).addCallbacks(
            lambda _: self._unstored.keep(deliveries),
            self._not_kept,
            errbackArgs=(stanza, deliveries, self._failed),
        )

    def _push_failed(self, failure: Failure, stanza: Element) -> None:
        account = stanza["to"].partition("/")[0]
        now = self._clock.seconds()
        if not failure.check(StorageError):
            self._log.failure("push for {account} failed", failure=failure, account=account)
        elif now >= self._quiet_until:
            self._quiet_until = now + QUIET
            self._log.warn(
                "pushes for {account}, and perhaps for others, are lost: {reason}",
                account=account,
                reason=str(failure.value),
            )

    def _failed(self, failure: Failure, stanza: Element) -> None:
        error = failure.value
        if isinstance(error, OfflineFull):  # RFC 6121 section 8.5.2.2.1
            self._answer(stanza, StanzaError("service-unavailable"))
        elif isinstance(error, StorageError):  # said once by the storage
            self._answer(stanza, error)
        else:
            self._log.failure("a message could not be handled", failure=failure)
            self._answer(stanza, StanzaError("internal-server-error"))


def _is_any_managed(sessions: Sequence[ISession]) -> bool:
    for session in sessions:  # noqa: SIM110 - a generator costs a microsecond
        if session.managed:
            return True
    return False


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
