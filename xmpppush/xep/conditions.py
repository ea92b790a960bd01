"""
What our exceptions are in XMPP: the one table (RFC 6120 section 8.3.3, XEP-0060 section 12).

PEERS.md section 5 says why towards app-server clients a passing trouble is ``wait`` with
``internal-server-error`` and a dead device is ``cancel`` with ``item-not-found``: no other pair makes
MongooseIM, ejabberd, Prosody and Tigase all do the right thing.
"""

from collections.abc import Mapping

from attrs import frozen
from twisted.python.failure import Failure
from twisted.words.protocols.jabber.error import StanzaError
from twisted.words.xish.domish import Element

from xmpppush import errors
from xmpppush.jids import BadJid
from xmpppush.xep.namespaces import PUBSUB_ERRORS


@frozen
class Condition:
    """
    A stanza error.

    Attributes:
        name: Defined condition.
        type: ``auth``, ``cancel``, ``modify`` or ``wait``.
        pubsub: Element of ``pubsub#errors`` beside it, ``""`` for none.
        told: The exception's text goes to the sender. Not where it tells about our inside: which
            push service we use, what is wrong with the disk.
    """

    name: str
    type: str
    pubsub: str = ""
    told: bool = True


CONDITIONS: Mapping[type[BaseException], Condition] = {
    BadJid: Condition("jid-malformed", "modify"),
    errors.BadStanza: Condition("bad-request", "modify"),
    errors.NodeIdMissing: Condition("bad-request", "modify", "nodeid-required"),
    errors.InvalidPayload: Condition("bad-request", "modify", "invalid-payload"),
    errors.ItemRequired: Condition("bad-request", "modify", "item-required"),
    errors.PayloadRequired: Condition("bad-request", "modify", "payload-required"),
    errors.ItemForbidden: Condition("bad-request", "modify", "item-forbidden"),
    errors.JidRequired: Condition("bad-request", "modify", "jid-required"),
    errors.InvalidJid: Condition("bad-request", "modify", "invalid-jid"),
    errors.InvalidOptions: Condition("bad-request", "modify", "invalid-options"),
    errors.NotAcceptable: Condition("not-acceptable", "modify"),
    errors.InvalidSubid: Condition("not-acceptable", "modify", "invalid-subid"),
    errors.PayloadTooBig: Condition("not-acceptable", "modify", "payload-too-big"),
    errors.NodeIdRequired: Condition("not-acceptable", "modify", "nodeid-required"),
    errors.UnsupportedAccessModel: Condition("not-acceptable", "modify", "unsupported-access-model"),
    errors.PreconditionNotMet: Condition("conflict", "cancel", "precondition-not-met"),
    errors.NotAllowed: Condition("not-allowed", "cancel"),
    errors.ClosedNode: Condition("not-allowed", "cancel", "closed-node"),
    errors.Forbidden: Condition("forbidden", "auth"),
    errors.PendingSubscription: Condition("not-authorized", "auth", "pending-subscription"),
    errors.SubscriptionRequired: Condition("not-authorized", "auth", "not-subscribed"),
    errors.NotSubscribed: Condition("unexpected-request", "cancel", "not-subscribed"),
    # XEP-0060 gives the same condition another type here than when a subscription is to be ended.
    errors.NoSuchSubscriber: Condition("unexpected-request", "modify", "not-subscribed"),
    errors.NodeNotFound: Condition("item-not-found", "cancel"),
    errors.ItemNotFound: Condition("item-not-found", "cancel"),
    errors.NodeExists: Condition("conflict", "cancel"),
    errors.AccountExists: Condition("conflict", "cancel"),
    errors.Unsupported: Condition("feature-not-implemented", "cancel", "unsupported"),
    errors.LimitReached: Condition("resource-constraint", "wait"),
    errors.TooManySubscriptions: Condition("policy-violation", "wait", "too-many-subscriptions"),
    errors.AppServerUnreachable: Condition("remote-server-timeout", "wait"),
    errors.StorageError: Condition("internal-server-error", "wait", told=False),
    errors.DeliveryError: Condition("internal-server-error", "wait", told=False),
    errors.DeviceUnregistered: Condition("item-not-found", "cancel", told=False),
    # Our request was wrong: the operator puts that right. ejabberd would delete the registration on
    # anything but ``wait``.
    errors.Refused: Condition("internal-server-error", "wait", told=False),
}


def condition_of(error: BaseException | None) -> Condition | None:
    """Its row of the table or that of its nearest base class; ``None`` for what is not ours."""
    for cls in type(error).__mro__:
        condition = CONDITIONS.get(cls)
        if condition is not None:
            return condition
    return None


def stanza_error(error: BaseException | None) -> StanzaError | None:
    """The stanza error for an exception of ours, or the exception itself where it is one already."""
    if isinstance(error, StanzaError):
        return error
    condition = condition_of(error)
    if error is None or condition is None:
        return None
    beside = Element((PUBSUB_ERRORS, condition.pubsub)) if condition.pubsub else None
    text = str(error) if condition.told and error.args else ""
    if beside is not None and isinstance(error, errors.Unsupported):
        beside["feature"] = error.feature
        text = "" if text == error.feature else text
    return StanzaError(condition.name, condition.type, text=text or None, appCondition=beside)


def to_stanza_error(failure: Failure) -> Failure:
    """
    Errback of a handler: what we raise on purpose becomes a `StanzaError`.

    Anything else passes through; Wokkel logs it and answers internal-server-error.
    """
    error = stanza_error(failure.value)
    if error is None:
        return failure
    raise error


def bounced(stanza: Element, error: BaseException) -> Element | None:
    """
    `error_reply`, for a stanza that does not get to whom it is addressed to.

    It is written as if that one had answered (RFC 6120 section 8.3.1). That it has not is what `is_bounce`
    tells: an app server that is not reached says nothing against a registration.
    """
    reply = error_reply(stanza, error)
    if reply is not None:
        reply.is_bounce = True  # type: ignore[attr-defined]
    return reply


def is_bounce(stanza: Element) -> bool:
    """Was this error made on the way, by this process?"""
    return "is_bounce" in stanza.__dict__


def error_reply(stanza: Element, error: BaseException) -> Element | None:
    """
    The answer to a stanza that failed (RFC 6120 section 8.3): addresses swapped, content and id kept.

    Args:
        error: One of ours, a `StanzaError`, or anything else, which is internal-server-error.

    Returns:
        ``None`` where no answer may be given: to an error, and to the result of a request.
    """
    if stanza.getAttribute("type") in ("error", "result"):
        return None
    found = stanza_error(error) or StanzaError("internal-server-error")
    reply: Element = found.toResponse(stanza)
    return reply
