"""Who may do what to a node, by table."""

import pytest

from xmpppush.errors import (
    Forbidden,
    LimitReached,
    NotAcceptable,
    NotAllowed,
    PreconditionNotMet,
    UnsupportedAccessModel,
)
from xmpppush.jids import parse_jid
from xmpppush.mod_pubsub.nodetypes import FLAT_DEFAULTS, PUSH_DEFAULTS, PUSH_FEATURES, PushNodeType
from xmpppush.mod_pubsub.rules import (
    MAX_AFFILIATIONS,
    OPTIONS,
    affiliation_of,
    affiliations_at_creation,
    check_affiliations,
    check_config,
    check_create,
    check_name,
    may_publish,
    may_see,
    merged_config,
)
from xmpppush.testing.builders import a_node, a_publish

ALICE = parse_jid("alice@localhost/phone")
STRANGER = parse_jid("eve@far.example/x")


@pytest.mark.parametrize("name", ["n", "x" * 1024, "/home/é ☎", " "])
def test_names(name):
    """Any characters, up to 1024 octets."""
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["x" * 1025, "é" * 600])
def test_bad_names(name):
    """No names too long."""
    with pytest.raises(NotAcceptable):
        check_name(name)


@pytest.mark.parametrize(
    ("access", "creator", "error"),
    [
        ("all", ALICE, None),
        ("all", STRANGER, None),
        ("local", ALICE, None),
        ("local", parse_jid("localhost"), None),
        ("local", STRANGER, Forbidden),
        ("local", parse_jid("alice@sub.localhost"), Forbidden),
        ("none", ALICE, NotAllowed),
        ("none", STRANGER, NotAllowed),
    ],
)
def test_who_creates(access, creator, error):
    """access_createnode: all, local, none."""
    if error is None:
        check_create(access, creator, {"localhost"})
    else:
        with pytest.raises(error):
            check_create(access, creator, {"localhost"})


def test_affiliations_at_creation():
    """The creator owns it and its server may publish; a server that creates owns it."""
    assert affiliations_at_creation(ALICE) == {"alice@localhost": "owner", "localhost": "publish-only"}
    assert affiliations_at_creation(parse_jid("chat.example")) == {"chat.example": "owner"}


def test_affiliation_of_a_domain_is_not_inherited():
    """publish-only for the server is not publish-only for all its users."""
    node = a_node()
    assert affiliation_of(node, "localhost") == "publish-only"
    assert affiliation_of(node, "alice@localhost") == "owner"
    assert affiliation_of(node, "eve@localhost") == "none"


@pytest.mark.parametrize(
    ("affiliation", "publishers", "open_"),
    [
        ("owner", True, True),
        ("publisher", True, True),
        ("publish-only", True, True),
        ("member", False, True),
        ("none", False, True),
        ("outcast", False, False),
    ],
)
def test_who_publishes(affiliation, publishers, open_):
    """XEP-0060 section 4.1, for both publish models."""
    assert may_publish(affiliation, "publishers") is publishers
    assert may_publish(affiliation, "open") is open_


@pytest.mark.parametrize(
    ("affiliation", "whitelist", "open_"),
    [
        ("owner", True, True),
        ("publish-only", True, True),
        ("member", True, True),
        ("none", False, True),
        ("outcast", False, False),
    ],
)
def test_who_sees(affiliation, whitelist, open_):
    """For both access models."""
    assert may_see(affiliation, "whitelist") is whitelist
    assert may_see(affiliation, "open") is open_


@pytest.mark.parametrize(
    ("submitted", "kept"),
    [
        ({}, {}),
        ({"pubsub#nosuch": "1"}, {}),
        ({"pubsub#persist_items": "true"}, {"pubsub#persist_items": "1"}),
        ({"pubsub#persist_items": "0"}, {"pubsub#persist_items": "0"}),
        ({"pubsub#publish_model": "open"}, {"pubsub#publish_model": "open"}),
        ({"pubsub#title": "é" * 512}, {"pubsub#title": "é" * 512}),
        ({"pubsub#max_items": "10"}, {"pubsub#max_items": "10"}),
    ],
)
def test_config(submitted, kept):
    """Unknown options are ignored, booleans are kept in one spelling."""
    assert check_config(submitted, PUSH_DEFAULTS, PUSH_FEATURES) == kept


@pytest.mark.parametrize(
    ("var", "value", "error"),
    [
        ("pubsub#access_model", "nosuch", UnsupportedAccessModel),
        ("pubsub#access_model", "presence", UnsupportedAccessModel),
        ("pubsub#access_model", "", UnsupportedAccessModel),
        ("pubsub#publish_model", "subscribers", NotAcceptable),
        ("pubsub#publish_model", "", NotAcceptable),
        ("pubsub#persist_items", "yes", NotAcceptable),
        ("pubsub#persist_items", "", NotAcceptable),
        ("pubsub#max_items", "many", NotAcceptable),
        ("pubsub#max_items", "-1", NotAcceptable),
        ("pubsub#max_items", "²", NotAcceptable),
        ("pubsub#max_items", "9" * 5000, NotAcceptable),
        ("pubsub#title", "x" * 1025, NotAcceptable),
    ],
)
def test_bad_config(var, value, error):
    """Values that do not fit."""
    with pytest.raises(error):
        check_config({var: value}, PUSH_DEFAULTS, PUSH_FEATURES)


def test_options_that_a_type_lacks_are_unknown_to_it():
    """Another node type's defaults say what it knows."""
    assert check_config({"pubsub#persist_items": "nonsense"}, {"pubsub#title": ""}, ()) == {}


def test_merged_config():
    """What is not submitted stays, what is back at its default is dropped."""
    current = {"pubsub#title": "t", "pubsub#publish_model": "open"}
    assert merged_config(PUSH_DEFAULTS, current, {"pubsub#publish_model": "publishers"}) == {
        "pubsub#title": "t"
    }


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"bob@localhost": "publisher"}, None),
        ({"localhost": "none"}, None),
        ({"bob@localhost": "owner", "alice@localhost": "none"}, None),
        ({"bob@localhost": "king"}, NotAcceptable),
        ({"bob@localhost": "Owner"}, NotAcceptable),
        ({"alice@localhost": "none"}, NotAcceptable),
        ({"alice@localhost": "outcast"}, NotAcceptable),
        ({f"u{n}@localhost": "member" for n in range(MAX_AFFILIATIONS)}, LimitReached),
    ],
)
def test_affiliation_changes(changes, error):
    """Known affiliations, an owner left, and not without end."""
    if error is None:
        check_affiliations(a_node(), changes)
    else:
        with pytest.raises(error):
            check_affiliations(a_node(), changes)


def test_too_many_affiliations_can_be_reduced():
    """A node over the limit may still lose some."""
    node = a_node(affiliations={"a@b": "owner", **{f"u{n}@b": "member" for n in range(MAX_AFFILIATIONS + 9)}})
    check_affiliations(node, {"u1@b": "none"})


def test_node_types():
    """Each option is one of a type that is built in."""
    assert set(PUSH_DEFAULTS) | set(FLAT_DEFAULTS) == set(OPTIONS)


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({"service": "fcm", "device_id": "t"}, True),
        ({"service": "fcm", "device": "t"}, True),
        ({"service": "fcm", "device_id": "", "device": "t"}, True),
        ({"service": "fcm"}, False),
        ({"service": "fcm", "device_id": ""}, False),
        ({"device_id": "t"}, False),
        ({"service": "", "device_id": "t"}, False),
        ({}, False),
    ],
)
def test_publish_options_of_a_push_node(options, fits):
    """service, and device_id or the tutorial's device."""
    publish = a_publish(options=options)
    if fits:
        PushNodeType().check_publish(a_node(), publish)
    else:
        with pytest.raises(PreconditionNotMet):
            PushNodeType().check_publish(a_node(), publish)
