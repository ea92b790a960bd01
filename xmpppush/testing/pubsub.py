"""Requests to a pubsub host as XML, and what is in its answers."""

from typing import Any

from twisted.words.xish.domish import Element

PUBSUB = "http://jabber.org/protocol/pubsub"
OWNER = f"{PUBSUB}#owner"
NODE_CONFIG = f"{PUBSUB}#node_config"
PUBLISH_OPTIONS = f"{PUBSUB}#publish-options"
SUBSCRIBE_OPTIONS = f"{PUBSUB}#subscribe_options"
AUTHORIZATION = f"{PUBSUB}#subscribe_authorization"
INFO = "http://jabber.org/protocol/disco#info"
ITEMS = "http://jabber.org/protocol/disco#items"


def pubsub(inside: str) -> str:
    return f"<pubsub xmlns='{PUBSUB}'>{inside}</pubsub>"


def owner(inside: str) -> str:
    return f"<pubsub xmlns='{OWNER}'>{inside}</pubsub>"


def form(form_type: str, fields: dict[str, str], type: str = "submit") -> str:
    rest = "".join(f"<field var='{var}'><value>{value}</value></field>" for var, value in fields.items())
    form_type = f"<field var='FORM_TYPE'><value>{form_type}</value></field>" if form_type else ""
    return f"<x xmlns='jabber:x:data' type='{type}'>{form_type}{rest}</x>"


def condition(answer: Element) -> str:
    """``type/condition`` of an error, the element of pubsub#errors and its feature where there is one."""
    if answer["type"] == "result":
        return "result"
    (error,) = [child for child in answer.elements() if child.name == "error"]
    words = []
    for child in error.elements():
        if child.uri == "urn:ietf:params:xml:ns:xmpp-stanzas" and child.name != "text":
            words.append(f"{error['type']}/{child.name}")
        elif child.uri == f"{PUBSUB}#errors":
            words += [child.name, *child.attributes.values()]
    return " ".join(words)


def child(answer: Element, *names: str) -> Element:
    """The only child of each name in turn."""
    for name in names:
        (answer,) = [one for one in answer.elements() if one.name == name]
    return answer


def fields_in(form: Element) -> dict[str, Any]:
    """``var`` to its first value."""
    return {
        field["var"]: str(next(one for one in field.elements() if one.name == "value"))
        for field in form.elements()
        if field.name == "field"
    }
