"""
Elements as XML, quickly.

``Element.toXml`` looks for prefixes at every step, and nearly no stanza has any. What has is left to it.
"""

import re
from collections.abc import Callable

from twisted.words.xish.domish import Element, SerializedXML, escapeToXml

from xmpppush.xep.namespaces import CLIENT

_XML_LANG = ("http://www.w3.org/XML/1998/namespace", "lang")
_special_in_text = re.compile("[&<>]").search
_special_in_value = re.compile("[&<>'\"]").search


def to_xml(element: Element, namespace: str = CLIENT) -> str:
    """
    What ``element.toXml(defaultUri=namespace)`` gives, to the letter.

    Args:
        namespace: That of the stream it is for, in which elements with uri ``None`` are.
    """
    parts: list[str] = []
    if _write(element, namespace, parts.append):
        return "".join(parts)
    xml: str = element.toXml(defaultUri=namespace)
    return xml


def relayed_xml(stanza: Element) -> str:
    """
    What `to_xml` gives, for a stanza as a stream gave it: only its own attributes may have changed since.

    Where its octets are at hand, in ``raw`` from the start tag up to the end tag, what is inside is passed
    on as it was written, which is ten times as fast. Not where it may have prefixes that are declared
    further out; nor where a ``>`` in an attribute would hide the end of the start tag.
    """
    raw = stanza.__dict__.get("raw")
    if raw is None or b"stream:" in raw:
        return to_xml(stanza)
    head = f"<{stanza.name}"
    for key, value in stanza.attributes.items():
        if _special_in_value(value):
            return to_xml(stanza)
        if type(key) is not str:
            if key != _XML_LANG:
                return to_xml(stanza)
            key = "xml:lang"
        head = f"{head} {key}='{value}'"
    inside = raw.index(b">") + 1
    if raw.find(b"xmlns:", 0, inside) >= 0:
        return to_xml(stanza)
    return f"{head}>{raw[inside:].decode()}</{stanza.name}>"


def _write(element: Element, inherited: str, write: Callable[[str], object]) -> bool:
    """
    Args:
        inherited: The default namespace around it.

    Returns:
        False where it has prefixes: what was written so far is of no use.
    """
    # domish: an element without a namespace is in that of its parent.
    default = inherited if element.defaultUri is None else element.defaultUri
    if element.localPrefixes or (element.uri is not None and element.uri != default):
        return False
    name = element.name
    write(f"<{name}")
    if default != inherited:
        write(f" xmlns='{default}'")
    for key, value in element.attributes.items():
        if type(key) is not str:
            return False
        write(f" {key}='{escapeToXml(value, 1) if _special_in_value(value) else value}'")
    if not element.children:
        write("/>")
        return True
    write(">")
    for child in element.children:
        if type(child) is str:
            write(escapeToXml(child) if _special_in_text(child) else child)
        elif type(child) is SerializedXML:
            write(child)
        elif not _write(child, default, write):
            return False
    write(f"</{name}>")
    return True
