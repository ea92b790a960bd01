"""
Ad-hoc commands (XEP-0050), the part of who executes them: requests read, answers and errors built.

Who answers decides what a command does; here are commands of at most one form.
"""

from collections.abc import Iterable
from typing import NamedTuple

from attrs import frozen
from twisted.words.protocols.jabber.error import StanzaError
from twisted.words.xish.domish import Element

from xmpppush.errors import BadStanza
from xmpppush.xep.dataforms import FORM_TYPE, Form, form_in
from xmpppush.xep.namespaces import COMMANDS, DATA_FORMS

ACTIONS = frozenset(("execute", "cancel", "prev", "next", "complete"))
MAX_SESSION_ID = 200  # characters
MAX_FIELDS = 20
MAX_FORM = 16 * 1024  # characters of all names and values


class CommandRequest(NamedTuple):
    """
    A ``<command/>`` as it was sent (sections 2 and 4).

    Attributes:
        node: The command.
        action: ``execute`` where none is named.
        session: ``sessionid``, ``""`` where it begins.
        form: Its form, ``None`` without one.
    """

    node: str
    action: str
    session: str
    form: Form | None


@frozen
class Ask:
    """A field of a form that is shown: its name, what it is called, and may it be left empty."""

    var: str
    label: str
    required: bool = True
    type: str = "text-single"
    options: tuple[str, ...] = ()


def refusal(condition: str, name: str, type: str | None = None) -> StanzaError:
    """A stanza error with one of section 4.4's specific conditions beside it."""
    return StanzaError(condition, type, appCondition=Element((COMMANDS, name)))


def bad_payload() -> StanzaError:
    """The form is none that can be taken here."""
    return refusal("bad-request", "bad-payload", "modify")


def command_in(iq: Element) -> CommandRequest:
    """
    Read the request.

    Raises:
        BadStanza: There is no command, or it names no node.
        StanzaError: ``malformed-action`` of an action that XEP-0050 does not know; ``bad-sessionid`` of
            one that is too long; ``bad-payload`` of a form that is larger than any of ours, has a type
            that answers nothing, or is not the only one.
    """
    for command in iq.elements():
        if (command.uri, command.name) == (COMMANDS, "command"):
            break
    else:
        raise BadStanza("there is no command")
    node = command.getAttribute("node", "")
    if not node:
        raise BadStanza("the command has no node")
    action = command.getAttribute("action", "") or "execute"
    if action not in ACTIONS:
        raise refusal("bad-request", "malformed-action", "modify")
    session = command.getAttribute("sessionid", "")
    if len(session) > MAX_SESSION_ID:
        raise refusal("bad-request", "bad-sessionid", "modify")
    forms = [child for child in command.elements() if (child.uri, child.name) == (DATA_FORMS, "x")]
    if len(forms) > 1:
        raise bad_payload()
    form = form_in(command)
    if form is not None and action != "cancel" and not _is_sane(form):
        raise bad_payload()
    return CommandRequest(node, action, session, form)


def _is_sane(form: Form) -> bool:
    # No type at all is Prosody's and older clients' way of a submit.
    if form.type not in ("submit", "") or len(form.fields) > MAX_FIELDS:
        return False
    return sum(len(one.var) + sum(map(len, one.values)) for one in form.fields) <= MAX_FORM


def asking(node: str, session: str, title: str, form_type: str, fields: Iterable[Ask]) -> Element:
    """The answer that shows a form, the only and last one (example 4)."""
    command = _command(node, session, "executing")
    actions = command.addElement("actions")
    actions["execute"] = "complete"
    actions.addElement("complete")
    form = command.addElement((DATA_FORMS, "x"))
    form["type"] = "form"
    form.addElement("title", content=title)
    if form_type:
        hidden = form.addElement("field")
        hidden["var"], hidden["type"] = FORM_TYPE, "hidden"
        hidden.addElement("value", content=form_type)
    for ask in fields:
        field = form.addElement("field")
        field["var"], field["type"], field["label"] = ask.var, ask.type, ask.label
        for option in ask.options:
            field.addElement("option").addElement("value", content=option)
        if ask.required:
            field.addElement("required")
    return command


def completed(
    node: str, session: str, form_kind: str, fields: Iterable[tuple[str, str, str]], status: str = "completed"
) -> Element:
    """
    The answer of a command that is through.

    Args:
        form_kind: Type of the form with the outcome.
        fields: Name, type (``""``: none is said) and value; without any there is no form.
    """
    command = _command(node, session, status)
    fields = tuple(fields)
    if fields:
        form = command.addElement((DATA_FORMS, "x"))
        form["type"] = form_kind
        for var, type, value in fields:
            field = form.addElement("field")
            if type:
                field["type"] = type
            field["var"] = var
            field.addElement("value", content=value)
    return command


def canceled(node: str, session: str) -> Element:
    """The answer to a cancel (example 10)."""
    return _command(node, session, "canceled")


def _command(node: str, session: str, status: str) -> Element:
    command = Element((COMMANDS, "command"))
    command["node"], command["sessionid"], command["status"] = node, session, status
    return command
