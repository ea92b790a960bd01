"""What our exceptions are in XMPP."""

import pytest
from twisted.python.failure import Failure
from twisted.words.protocols.jabber.error import StanzaError

from xmpppush import errors
from xmpppush._wokkel import generic
from xmpppush.jids import BadJid
from xmpppush.xep.conditions import error_reply, to_stanza_error


class PluginsOwn(errors.Forbidden):
    """A plugin's subclass."""


def parse(xml):
    return generic.parseXml(xml.encode())


@pytest.mark.parametrize(
    ("error", "condition", "type", "beside"),
    [
        (BadJid("x"), "jid-malformed", "modify", None),
        (errors.BadStanza("x"), "bad-request", "modify", None),
        (errors.BadForm("x"), "bad-request", "modify", None),
        (errors.NodeIdMissing("x"), "bad-request", "modify", "nodeid-required"),
        (errors.InvalidPayload("x"), "bad-request", "modify", "invalid-payload"),
        (errors.ItemRequired("x"), "bad-request", "modify", "item-required"),
        (errors.PayloadRequired("x"), "bad-request", "modify", "payload-required"),
        (errors.NotAcceptable("x"), "not-acceptable", "modify", None),
        (errors.NodeIdRequired("x"), "not-acceptable", "modify", "nodeid-required"),
        (errors.UnsupportedAccessModel("x"), "not-acceptable", "modify", "unsupported-access-model"),
        (errors.PreconditionNotMet("x"), "conflict", "cancel", "precondition-not-met"),
        (errors.NotAllowed("x"), "not-allowed", "cancel", None),
        (errors.Forbidden("x"), "forbidden", "auth", None),
        (PluginsOwn("x"), "forbidden", "auth", None),
        (errors.NodeNotFound("x"), "item-not-found", "cancel", None),
        (errors.NodeExists("x"), "conflict", "cancel", None),
        (errors.AccountExists("x"), "conflict", "cancel", None),
        (errors.Unsupported("subscribe"), "feature-not-implemented", "cancel", "unsupported"),
        (errors.TooManyNodes("x"), "resource-constraint", "wait", None),
        (errors.TooManyRegistrations("x"), "resource-constraint", "wait", None),
        (errors.OfflineFull("x"), "resource-constraint", "wait", None),
        (errors.StorageError("x"), "internal-server-error", "wait", None),
        (errors.SchemaTooNew("x"), "internal-server-error", "wait", None),
        (errors.TryLater("x"), "internal-server-error", "wait", None),
        (errors.GivenUp("x"), "internal-server-error", "wait", None),
        (errors.DeviceUnregistered("x"), "item-not-found", "cancel", None),
        (errors.Refused("x"), "internal-server-error", "wait", None),
    ],
)
def test_table(error, condition, type, beside):
    """Condition, type and the element of pubsub#errors, for each class."""
    with pytest.raises(StanzaError) as caught:
        to_stanza_error(Failure(error))
    answer = caught.value
    assert (answer.condition, answer.type) == (condition, type)
    assert (answer.appCondition and answer.appCondition.name) == beside
    assert beside is None or answer.appCondition.uri == "http://jabber.org/protocol/pubsub#errors"


def test_every_error_of_ours_has_a_condition():
    """Whatever a handler lets through is answered on purpose."""
    reply = {}
    for name, cls in vars(errors).items():
        if isinstance(cls, type) and issubclass(cls, errors.PushError):
            error = cls("feature") if cls is not errors.ConfigError else cls(["x"])
            reply[name] = error_reply(parse("<iq type='get'/>"), error).toXml()
    unmapped = {name for name, xml in reply.items() if "internal-server-error" in xml}
    assert unmapped == {
        "Refused",
        "PushError",
        "ConfigError",
        "StorageError",
        "SchemaTooNew",
        "SchemaTooOld",
        "DeliveryError",
        "TryLater",
        "Unreachable",
        "GivenUp",
    }


def test_unsupported_names_the_feature():
    """The feature is an attribute and, as no text is given, not said twice."""
    xml = error_reply(parse("<iq type='get'/>"), errors.Unsupported("subscribe")).toXml()
    assert "<unsupported xmlns='http://jabber.org/protocol/pubsub#errors' feature='subscribe'/>" in xml
    assert "<text" not in xml


def test_unknown_exceptions_pass_through():
    """A fault of ours stays loud: Wokkel logs it."""
    failure = Failure(KeyError("x"))
    assert to_stanza_error(failure) is failure
    with pytest.raises(StanzaError):
        to_stanza_error(Failure(StanzaError("conflict")))


def test_what_is_wrong_is_told():
    """The sender reads what to mend, and nothing about our inside."""
    stanza = parse("<iq type='set' id='1'/>")
    assert "node is missing" in error_reply(stanza, errors.BadStanza("node is missing")).toXml()
    for error in (
        errors.StorageError("disk"),
        errors.TryLater("disk"),
        errors.Refused("disk"),
        KeyError("disk"),
    ):
        assert "disk" not in error_reply(stanza, error).toXml()


def test_reply():
    """Addresses swapped, id and content kept, the stanza itself untouched."""
    stanza = parse("<message from='a@b/c' to='d@e' id='1' type='chat'><body>hi</body></message>")
    before = stanza.toXml()
    reply = error_reply(stanza, errors.Forbidden())
    assert (reply.name, reply["from"], reply["to"], reply["id"], reply["type"]) == (
        "message",
        "d@e",
        "a@b/c",
        "1",
        "error",
    )
    assert [child.name for child in reply.elements()] == ["body", "error"]
    assert stanza.toXml() == before


@pytest.mark.parametrize("type", ["error", "result"])
def test_errors_and_results_are_never_answered(type):
    """RFC 6120 sections 8.3.1 and 8.2.3."""
    assert error_reply(parse(f"<iq type='{type}' id='1'/>"), errors.Forbidden()) is None


def test_unknown_exception_is_internal_server_error():
    """Without its text."""
    xml = error_reply(parse("<iq type='get' id='1'/>"), RuntimeError("body")).toXml()
    assert "internal-server-error" in xml
    assert "type='wait'" in xml
