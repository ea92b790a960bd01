"""
Tigase's extensions of XEP-0357, which Siskin, Beagle and Stork use: elements in ``<enable/>``, and in what is
published then.

They have no XEP; docs.tigase.net (Tigase Push) and the sources of Tigase and Prosody's modules are what there
is.
"""

from base64 import b64decode
from binascii import Error
from collections.abc import Iterator

from twisted.words.xish.domish import Element

from xmpppush.errors import BadStanza
from xmpppush.jids import bare_of
from xmpppush.model import Call, Encrypted, Extensions, PushExtras, Room

ENCRYPT = "tigase:push:encrypt:0"
AES_128_GCM = "aes-128-gcm"
PRIORITY = "tigase:push:priority:0"
MUTED = "tigase:push:filter:muted:0"
GROUPCHAT = "tigase:push:filter:groupchat:0"
IGNORE_UNKNOWN = "tigase:push:filter:ignore-unknown:0"
JINGLE = "tigase:push:jingle:0"

FEATURES = (ENCRYPT, "tigase:push:encrypt:aes-128-gcm", PRIORITY, MUTED, GROUPCHAT, IGNORE_UNKNOWN, JINGLE)

MAX_ENTRIES = 500  # muted JIDs, and rooms
MAX_TEXT = 16 * 1024  # characters of all of them
MAX_SIZE = 3000  # octets of what is encrypted, where <encrypt/> says nothing
MAX_ENCRYPTED = 6000  # characters that are passed on; more fits into no push
_ALLOW = frozenset(("always", "mentioned", "never"))
_NAMES = {
    ENCRYPT: "encrypt",
    PRIORITY: "priority",
    MUTED: "muted",
    GROUPCHAT: "groupchat",
    IGNORE_UNKNOWN: "ignore-unknown",
    JINGLE: "jingle",
}


def parse_extensions(enable: Element) -> Extensions | None:
    """
    What the elements in ``<enable/>`` ask for, ``None`` where there are none.

    Raises:
        BadStanza: The key is none for AES-128-GCM, a JID is missing or malformed, or there are too many.
    """
    found: dict[str, Element] = {}
    for child in enable.elements():
        if _NAMES.get(child.uri) == child.name:
            if child.uri in found:
                raise BadStanza(f"{child.name} is there twice")
            found[child.uri] = child
    if not found:
        return None
    key, max_size = _key_in(found[ENCRYPT]) if ENCRYPT in found else (b"", MAX_SIZE)
    return Extensions(
        key=key,
        max_size=max_size,
        priority=PRIORITY in found,
        muted=_muted_in(found[MUTED]) if MUTED in found else frozenset(),
        ignore_unknown=IGNORE_UNKNOWN in found,
        rooms=_rooms_in(found[GROUPCHAT]) if GROUPCHAT in found else None,
        jingle=JINGLE in found,
    )


def parse_extras(notification: Element) -> PushExtras | None:
    """What a published ``<notification/>`` holds of theirs; what is malformed or too large is left out."""
    priority, call, encrypted = "", None, None
    for child in notification.elements():
        if child.uri == PRIORITY and child.name == "priority":
            priority = str(child) if str(child) in ("high", "low") else ""
        elif child.uri == JINGLE and child.name == "jingle":
            media = tuple(str(each) for each in child.elements() if each.name == "media")
            call = Call(child.getAttribute("action", ""), child.getAttribute("sid", ""), media)
        elif child.uri == ENCRYPT and child.name == "encrypted":
            text, iv = "".join(str(child).split()), child.getAttribute("iv", "")
            if text and iv and len(text) + len(iv) <= MAX_ENCRYPTED:
                encrypted = Encrypted(iv, text, child.getAttribute("type") == "voip")
    if not priority and call is None and encrypted is None:
        return None
    return PushExtras(priority, call, encrypted)


def extras_elements(extras: PushExtras) -> Iterator[Element]:
    """The elements in ``<notification/>``."""
    if extras.encrypted is not None:
        encrypted = Element((ENCRYPT, "encrypted"))
        encrypted["iv"] = extras.encrypted.iv
        if extras.encrypted.voip:
            encrypted["type"] = "voip"
        encrypted.addContent(extras.encrypted.text)
        yield encrypted
    if extras.priority:
        priority = Element((PRIORITY, "priority"))
        priority.addContent(extras.priority)
        yield priority
    if extras.call is not None:
        jingle = Element((JINGLE, "jingle"))
        jingle["action"], jingle["sid"] = extras.call.action, extras.call.sid
        for media in extras.call.media:
            jingle.addElement("media", content=media)
        yield jingle


def _key_in(encrypt: Element) -> tuple[bytes, int]:
    if encrypt.getAttribute("alg") != AES_128_GCM:
        raise BadStanza(f"the only alg is {AES_128_GCM}")
    try:
        key = b64decode("".join(str(encrypt).split()), validate=True)
    except (Error, ValueError):
        key = b""
    if len(key) != 16:
        raise BadStanza("the key is not 16 octets in base64")
    size = encrypt.getAttribute("max-size", "") or str(MAX_SIZE)
    if not (size.isascii() and size.isdecimal() and len(size) < 8):
        raise BadStanza("max-size is no number")
    return key, min(max(int(size), 100), MAX_SIZE)


def _muted_in(muted: Element) -> frozenset[str]:
    items = [item.getAttribute("jid", "") for item in muted.elements() if item.name == "item"]
    _check_size(items)
    return frozenset(map(bare_of, items))


def _rooms_in(groupchat: Element) -> dict[str, Room]:
    elements = [room for room in groupchat.elements() if room.name == "room"]
    _check_size([room.getAttribute("jid", "") + room.getAttribute("nick", "") for room in elements])
    rooms: dict[str, Room] = {}
    for element in elements:
        allow = element.getAttribute("allow", "always")
        if allow not in _ALLOW:
            raise BadStanza("a room's allow is none of always, mentioned, never")
        rooms[bare_of(element.getAttribute("jid", ""))] = Room(allow, element.getAttribute("nick", ""))
    return rooms


def _check_size(texts: list[str]) -> None:
    if len(texts) > MAX_ENTRIES or sum(map(len, texts)) > MAX_TEXT:
        raise BadStanza("the filter is too long")
