"""
The one exception tree.

Each class says what the caller does next. ``xep/conditions.py`` says them in XMPP
(RFC 6120 section 8.3.3), ``mod_push_service_mongoosepush/outcomes.py`` makes them from HTTP.
None of them carries a device token, a password or a message body.
"""

from collections.abc import Sequence


class PushError(Exception):
    """The root of everything that xmpppush raises on purpose."""


class ConfigError(PushError):
    """
    The configuration cannot be used.

    Attributes:
        problems: One line for each problem: file, section, key, what is wrong, what is allowed.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class StorageError(PushError):
    """The storage cannot do this now; nothing of the transaction is kept."""


class SchemaTooNew(StorageError):
    """The database was written by a newer xmpppush; this one leaves it alone."""


class SchemaTooOld(StorageError):
    """The database needs ``xmpppush db upgrade`` and ``auto_upgrade`` is off."""


# What a stanza or a request did wrong, or asked of something that is not there.


class BadStanza(PushError):
    """The request lacks or mangles something; the text tells what."""


class BadForm(BadStanza):
    """A data form (XEP-0004) is not what its place asks for."""


class NotAcceptable(PushError):
    """Understood, and against a rule of this service (a configuration value, say)."""


class NodeIdRequired(NotAcceptable):
    """A node was to be created without a name (XEP-0060 section 8.1.2)."""


class NodeIdMissing(BadStanza):
    """The request is about a node and names none (XEP-0060 section 7.1.3.3)."""


class UnsupportedAccessModel(NotAcceptable):
    """Node configuration asks for an access model that is not offered (XEP-0060 section 8.1.3)."""


class InvalidPayload(BadStanza):
    """A publish carries something else than the node takes (XEP-0060 section 7.1.3.6)."""


class ItemRequired(InvalidPayload):
    """A publish to a node that wants an item has none (XEP-0060 section 7.1.3.7)."""


class PayloadRequired(InvalidPayload):
    """The published item is empty (XEP-0060 section 7.1.3.7)."""


class ItemForbidden(InvalidPayload):
    """The node takes publishes without an item only (XEP-0060 section 7.1.3.7)."""


class PayloadTooBig(NotAcceptable):
    """The payload is larger than the node takes (XEP-0060 section 7.1.3.5)."""


class JidRequired(BadStanza):
    """The request is about a subscription and does not say whose (XEP-0060 section 6.3.4.3)."""


class InvalidJid(BadStanza):
    """One subscribes oneself only (XEP-0060 section 6.1.3.1)."""


class InvalidOptions(BadForm):
    """Subscription options have a value that they do not take (XEP-0060 section 6.3.6.2)."""


class InvalidSubid(NotAcceptable):
    """There is one subscription for each JID, and none has an id (XEP-0060 section 6.2.3.5)."""


class PreconditionNotMet(PushError):
    """Publish options do not fit the node (XEP-0060 section 7.1.5)."""


class NotAllowed(PushError):
    """Nobody may do that here."""


class Forbidden(PushError):
    """This sender may not do that."""


class ClosedNode(NotAllowed):
    """The node is for those on its whitelist (XEP-0060 sections 6.1.3.4 and 6.5.9.8)."""


class PendingSubscription(PushError):
    """An owner has not decided about the subscription yet (XEP-0060 section 6.1.3.7)."""


class SubscriptionRequired(PushError):
    """The node shows its items to subscribers (XEP-0060 section 6.5.9.3)."""


class NotSubscribed(PushError):
    """There is no such subscription to be ended (XEP-0060 section 6.2.3.2)."""


class NoSuchSubscriber(PushError):
    """There is no such subscription to have options (XEP-0060 section 6.3.4.2)."""


class NodeNotFound(PushError):
    """No such node: whoever publishes to it forgets the registration."""


class ItemNotFound(PushError):
    """The node has no such item."""


class NodeExists(PushError):
    """The node is there already."""


class AccountExists(PushError):
    """The account is there already."""


class Unsupported(PushError):
    """
    A part of XEP-0060 that this service leaves out.

    Attributes:
        feature: Its name as in XEP-0060 section 10, such as ``subscribe``.
    """

    def __init__(self, feature: str, text: str = "") -> None:
        super().__init__(text or feature)
        self.feature = feature


class LimitReached(PushError):
    """There is no room for one more; something has to go first."""


class TooManyRegistrations(LimitReached):
    """The account has ``[mod_push] max_registrations`` already."""


class TooManyNodes(LimitReached):
    """The user has ``[mod_pubsub] max_nodes_per_user`` already."""


class TooManySubscriptions(LimitReached):
    """The node, or the subscriber, has as many as may be (XEP-0060 section 6.1.3.9)."""


class OfflineFull(LimitReached):
    """The account has ``[limits] offline_messages_per_user`` waiting already."""


class AppServerUnreachable(PushError):
    """The app server is in another process, or nowhere: nothing a device would be forgotten for."""


class NoSuchServer(PushError):
    """The domain has no XMPP server that one could connect to: it does not exist, or says so."""


# What a push service made of a notification.


class DeliveryError(PushError):
    """
    A notification did not get through.

    Attributes:
        provider_word: What the provider called it, one of the words it documents, or ``""``.
    """

    provider_word = ""


class DeviceUnregistered(DeliveryError):
    """The device is gone for good: forget its registration."""


class TryLater(DeliveryError):
    """
    A passing trouble: keep the notification and try again.

    Attributes:
        after: Seconds to wait at least, as the service asked (Retry-After), or ``None``.
    """

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after


class Unreachable(TryLater):
    """There was no connection to send it over, so nothing was sent: others need not try for a while."""


class Refused(DeliveryError):
    """The push service finds our request wrong; sending it again would not help."""


class GivenUp(DeliveryError):
    """Too many tries, or too old: dropped, and recorded as such."""
