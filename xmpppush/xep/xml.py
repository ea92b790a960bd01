"""
Elements as XML, quickly.

``Element.toXml`` looks for prefixes at every step, and nearly no stanza has any. What has is left to it.
"""

import re
from collections.abc import Callable

from twisted.words.xish.domish import Element, SerializedXML, escapeToXml

from xmpppush.xep.namespaces import CLIENT

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
