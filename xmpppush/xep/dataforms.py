"""
Data forms (XEP-0004) with their FORM_TYPE (XEP-0068), read and built.

Wokkel's reader is strict where servers are not: it overlooks a FORM_TYPE without ``type='hidden'``
(as in XEP-0357's own examples) and refuses a repeated field. This one takes what is sent and leaves
strictness to whoever asks for it.
"""

from collections.abc import Iterable, Iterator, Mapping

from attrs import field, frozen
from twisted.words.xish.domish import Element

from xmpppush.errors import BadForm
from xmpppush.xep.namespaces import DATA_FORMS

FORM_TYPE = "FORM_TYPE"


@frozen
class Field:
    """
    A field as it was sent.

    Attributes:
        var: Its name, ``""`` where it has none.
        values: Its values in order; none at all for ``<field var='x'/>``. May hold a device token.
        type: The ``type`` attribute, ``""`` where it has none.
    """

    var: str
    values: tuple[str, ...] = field(default=(), repr=False)
    type: str = ""


@frozen
class Form:
    """
    A form as it was sent.

    Attributes:
        type: The ``type`` attribute (``form``, ``submit``, ``cancel``, ``result``), ``""`` without one.
        fields: In order, FORM_TYPE included, repetitions too.
    """

    type: str
    fields: tuple[Field, ...]

    @property
    def form_type(self) -> str | None:
        """Value of the FORM_TYPE field, ``None`` where the form has none."""
        for one in self.fields:
            if one.var == FORM_TYPE:
                return one.values[0] if one.values else ""
        return None

    def first_values(self) -> dict[str, str]:
        """``var`` to first value, ``""`` without one; FORM_TYPE left out; the last of a name wins."""
        return {
            one.var: one.values[0] if one.values else ""
            for one in self.fields
            if one.var and one.var != FORM_TYPE
        }

    def single_values(self) -> dict[str, str]:
        """
        As `first_values`, for a place where every field has exactly one value.

        Raises:
            BadForm: A field has no name, no value or several.
        """
        for one in self.fields:
            if one.type == "fixed":  # text for people, XEP-0004 section 3.3
                continue
            if not one.var:
                raise BadForm("a form field has no name")
            if len(one.values) != 1:
                raise BadForm("a form field has no value or more than one")
        return self.first_values()


def text_of(element: Element) -> str:
    """All text directly inside; ``str(element)`` would stop at the first entity or CDATA section."""
    children = element.children
    if len(children) == 1 and isinstance(children[0], str):
        return children[0]
    return "".join(child for child in children if isinstance(child, str))


def forms_in(parent: Element) -> Iterator[Form]:
    """The forms directly inside ``parent``, in order."""
    for child in parent.elements():
        if child.name == "x" and child.uri == DATA_FORMS:
            yield _form(child)


def form_in(parent: Element) -> Form | None:
    """The first form directly inside ``parent``."""
    return next(forms_in(parent), None)


def fields_of(parent: Element, form_type: str) -> dict[str, str]:
    """
    The fields of the form child with this FORM_TYPE (XEP-0068 section 3).

    Returns:
        ``var`` to its first ``<value/>``, ``""`` for an empty field, without FORM_TYPE; an empty dict
        where there is no such form.
    """
    for form in forms_in(parent):
        if form.form_type == form_type:
            return form.first_values()
    return {}


def form_element(type: str, form_type: str, fields: Mapping[str, str] | Iterable[tuple[str, str]]) -> Element:
    """Build a form of this ``type`` and FORM_TYPE; ``fields`` are ``var`` to value, in order."""
    form = Element((DATA_FORMS, "x"))
    form["type"] = type
    hidden = form.addElement("field")
    hidden["var"] = FORM_TYPE
    hidden["type"] = "hidden"
    hidden.addElement("value", content=form_type)
    for var, value in fields.items() if isinstance(fields, Mapping) else fields:
        one = form.addElement("field")
        one["var"] = var
        one.addElement("value", content=value)
    return form


def _form(element: Element) -> Form:
    return Form(element.getAttribute("type", ""), tuple(_fields(element)))


def _fields(form: Element) -> Iterator[Field]:
    for child in form.elements():
        if child.name == "field" and child.uri == DATA_FORMS:
            values = tuple(
                text_of(value)
                for value in child.elements()
                if value.name == "value" and value.uri == DATA_FORMS
            )
            yield Field(child.getAttribute("var", ""), values, child.getAttribute("type", ""))
