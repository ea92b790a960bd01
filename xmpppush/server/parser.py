"""
XML streams into plain `Element` objects, with nothing that a stranger could grow.

``domish.ExpatElementStream`` expands entities, joins text quadratically and knows no depth (FLOORS.md
section 2). This one refuses what RFC 6120 section 11.1 forbids, counts everything that an attacker
chooses, and does per element only what has to be done.
"""

import re
from collections.abc import Callable
from itertools import islice
from typing import Any
from xml.parsers import expat

from twisted.words.xish.domish import Element

from xmpppush.errors import PushError
from xmpppush.xep.namespaces import CLIENT, STREAMS

MAX_DEPTH = 100  # elements within each other in a stanza; toXml() recurses once for each
MAX_ELEMENTS = 4096  # in a stanza; an OMEMO message for a hundred devices has some 250
MAX_ATTRIBUTES = 64  # of one element
MAX_NAMES = 64 * 1024  # characters of all the different names in a stream: expat never forgets one
BEFORE_AUTHENTICATION = 16 * 1024  # bytes of a stanza from somebody that we do not know

_SLICE = 16 * 1024  # bytes given to expat at once: how far beyond a limit it can get
_STEP = 4096  # bytes held back while there is no '>' in them
_RESCANS = 32  # times the stanza size that expat may look at the same unfinished tag again
_TEXT_BUFFER = 1024  # pyexpat allocates it for every connection

# domish writes namespace names unescaped, so these would let a client write stanzas for others.
_NOT_A_URI = re.compile(r"""['"<>&\s\x00-\x1f]""")

_UNDEFINED_ENTITY = expat.errors.codes[expat.errors.XML_ERROR_UNDEFINED_ENTITY]
_CONDITIONS = {  # RFC 6120 section 4.9.3; the rest is not-well-formed
    expat.errors.codes[expat.errors.XML_ERROR_UNBOUND_PREFIX]: "bad-namespace-prefix",
    expat.errors.codes[expat.errors.XML_ERROR_UNKNOWN_ENCODING]: "unsupported-encoding",
    expat.errors.codes[expat.errors.XML_ERROR_INCORRECT_ENCODING]: "unsupported-encoding",
    _UNDEFINED_ENTITY: "restricted-xml",
    expat.errors.codes[expat.errors.XML_ERROR_RECURSIVE_ENTITY_REF]: "restricted-xml",
}

_Name = tuple[str, str, str | None]


class StreamFault(PushError):
    """
    The stream cannot go on.

    Attributes:
        condition: The stream error of RFC 6120 section 4.9.3, such as ``policy-violation``.
        text: For people; names no content of the stream.
        application: An application-specific condition, as XML.
    """

    def __init__(self, condition: str, text: str = "", application: str = "") -> None:
        super().__init__(f"{condition}: {text}" if text else condition)
        self.condition = condition
        self.text = text
        self.application = application


class _Stopped(Exception):
    """Unwinds out of expat after `StreamParser.stop`."""


class StreamParser:
    """
    Calls back for the stream header, each stanza and the end of the stream.

    The stream's own namespace, such as ``jabber:client``, becomes ``None`` (``uri`` and ``defaultUri``)
    on a stanza and within it, as long as every ancestor in the stanza is in it too. Below an element of
    another namespace it stays what it is, so that a forwarded message can be told from a real one.
    Everything else is as domish makes it; ``toXml(defaultUri=NAMESPACE)`` gives the stanza back. Most
    stanzas also have ``raw``, see `xmpppush.xep.xml.relayed_xml`.

    A callback may call `stop`; what follows in the same segment is then dropped, unread.

    Args:
        started: Called with the header, an `Element` without children, all its names explicit.
        received: Called with each stanza, its ``parent`` ``None``.
        ended: Called at the stream's closing tag.
        max_size: Bytes of one stanza, or of the header.
        namespace: The stream's content namespace.
        keepalives: Any amount of whitespace may stand between stanzas. Otherwise it counts, so that
            it too comes to an end.
    """

    __slots__ = (
        "_current",
        "_default",
        "_depth",
        "_elements",
        "_ended",
        "_expat",
        "_fed",
        "_held",
        "_keepalives",
        "_known_names",
        "_max_size",
        "_name_size",
        "_names",
        "_namespace",
        "_plain",
        "_prefixes",
        "_qnames",
        "_received",
        "_rescanned",
        "_root",
        "_segment",
        "_segment_start",
        "_stanza_start",
        "_started",
        "_stopped",
        "_text",
    )

    def __init__(
        self,
        started: Callable[[Element], None],
        received: Callable[[Element], None],
        ended: Callable[[], None],
        max_size: int = BEFORE_AUTHENTICATION,
        namespace: str = CLIENT,
        keepalives: bool = False,
    ) -> None:
        self._started = started
        self._received = received
        self._ended = ended
        self._max_size = max_size
        self._keepalives = keepalives
        self._namespace = namespace
        self._names: dict[str, str] = {}
        self._known_names = 0
        self._name_size = 0
        self._qnames: dict[str, _Name] = {}
        self._root: Element | None = None
        self._current: Element | None = None
        self._depth = 0
        self._elements = 0
        self._text: list[str] = []
        self._default = ""
        self._prefixes: dict[str, str] = {}
        self._fed = 0
        self._held = b""
        self._rescanned = 0
        self._segment = b""
        self._segment_start = 0
        self._stanza_start = 0
        self._plain = True  # the header declares no prefix but 'stream'
        self._stopped = False

        parser = expat.ParserCreate("UTF-8", " ", self._names)
        parser.buffer_size = _TEXT_BUFFER
        parser.buffer_text = True
        parser.namespace_prefixes = True
        # expat 2.6 delays a tag that came in two segments, which would delay the stanza.
        if hasattr(parser, "SetReparseDeferralEnabled"):
            parser.SetReparseDeferralEnabled(False)
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartNamespaceDeclHandler = self._declare
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.ProcessingInstructionHandler = self._refuse
        parser.CommentHandler = self._refuse
        self._expat = parser

    def stop(self) -> None:
        """Read nothing more, not even the rest of the segment at hand; may be called twice."""
        self._stopped = True
        self._held = b""

    def trust(self, max_size: int) -> None:
        """The peer has shown who it is, and the stream goes on without a restart (XEP-0220)."""
        self._max_size = max_size
        self._keepalives = True

    def close(self) -> None:
        """`stop`, and break the reference cycle through expat's handlers."""
        self.stop()
        parser = self._expat
        parser.StartElementHandler = None
        parser.EndElementHandler = None
        parser.CharacterDataHandler = None
        parser.StartNamespaceDeclHandler = None
        parser.XmlDeclHandler = None
        parser.StartDoctypeDeclHandler = None
        parser.EntityDeclHandler = None
        parser.ProcessingInstructionHandler = None
        parser.CommentHandler = None

    def feed(self, data: bytes) -> None:
        """
        Read the next bytes of the stream.

        Raises:
            StreamFault: The stream cannot go on; the parser is stopped.
        """
        if self._stopped:
            return
        try:
            # expat 2.5 reads an unfinished tag again with each segment: wait until it can be whole.
            if self._held:
                data = self._held + data
                self._held = b""
            elif not self._fed:
                _check_beginning(data)
            if len(data) < _STEP and b">" not in data:
                self._held = data
                self._check_size(len(data))
                return
            if self._root is None:
                self._feed_prolog(data)
            elif len(data) <= _SLICE:
                self._parse(data)
            else:
                for start in range(0, len(data), _SLICE):
                    self._parse(data[start : start + _SLICE])
        except _Stopped:
            pass
        except expat.ExpatError as error:
            self.stop()
            # Not str(error): it is only a number and a position, but section 4.9.3 needs neither.
            raise StreamFault(_CONDITIONS.get(error.code, "not-well-formed")) from None
        except StreamFault:
            self.stop()
            raise

    def _feed_prolog(self, data: bytes) -> None:
        # After an exception in a handler expat reads the rest of its input without handlers, a DTD
        # and its entities too. A DTD can only come before the header, so each step ends where one
        # shows itself, and the rest is never read.
        start = 0
        for match in re.finditer(rb"[>\[]", data):
            self._parse(data[start : match.end()])
            start = match.end()
            if self._root is not None:
                break
        for position in range(start, len(data), _SLICE):
            self._parse(data[position : position + _SLICE])

    def _parse(self, data: bytes) -> None:
        if self._stopped:
            raise _Stopped
        parser = self._expat
        begun = self._segment
        self._segment = begun + data if begun else data
        self._segment_start = self._fed - len(begun)
        self._fed += len(data)
        parser.Parse(data)
        begun = b""
        if self._current is not None:
            # The stanza's beginning is kept for its 'raw', but no idle client's memory is spent on that.
            start = self._stanza_start - self._segment_start
            if start >= 0 and len(self._segment) - start <= _STEP:
                begun = self._segment[start:]
        self._segment = begun
        unread = self._fed - parser.CurrentByteIndex
        if unread:
            self._rescanned += unread
            if self._rescanned > _RESCANS * self._max_size:
                raise StreamFault("policy-violation", "a tag in too many pieces")
        if self._fed - self._stanza_start > self._max_size:
            self._check_size(0)

    def _check_size(self, held: int) -> None:
        if self._fed + held - self._stanza_start > self._max_size:
            raise StreamFault("policy-violation", f"a stanza has {self._max_size} bytes at the most")

    def _start(self, name: str, attributes: dict[Any, str]) -> None:
        try:
            uri, local, prefix = self._qnames[name]
        except KeyError:
            uri, local, prefix = self._qnames[name] = _split(name)
        if attributes:
            if " " in "".join(attributes):
                attributes = {self._key(key): value for key, value in attributes.items()}
            if len(attributes) > MAX_ATTRIBUTES:
                raise StreamFault(
                    "policy-violation", f"an element has {MAX_ATTRIBUTES} attributes at the most"
                )

        parent = self._current
        # Faster than Element.__init__, which looks for defaults that are known here.
        element = _new(Element)
        element.localPrefixes = {}
        element.name = local
        element.attributes = attributes
        element.children = []
        element.parent = parent
        if parent is not None:
            if self._text:
                self._flush(parent.children)
            self._depth += 1
            self._elements += 1
            if self._depth > MAX_DEPTH or self._elements > MAX_ELEMENTS:
                raise StreamFault("policy-violation", "too many elements, or too deep")
            parent.children.append(element)
            if uri == self._namespace and parent.uri is None:
                element.uri = element.defaultUri = None
            elif prefix is None:
                element.uri = element.defaultUri = uri
            else:
                self._prefixed(element, uri, prefix)
        elif self._root is not None:
            self._depth = self._elements = 1
            self._stanza_start = self._expat.CurrentByteIndex
            if uri == self._namespace:
                element.uri = element.defaultUri = None
            elif prefix is None:
                element.uri = element.defaultUri = uri
            else:
                self._prefixed(element, uri, prefix)
        else:
            element.uri = element.defaultUri = uri
            self._header(element)
            return
        self._current = element

    def _key(self, name: str) -> str | tuple[str, str]:
        if " " not in name:
            return name
        try:
            return self._qnames[name][:2]
        except KeyError:
            self._qnames[name] = _split(name)
            return self._qnames[name][:2]

    def _prefixed(self, element: Element, uri: str, prefix: str) -> None:
        parent = element.parent
        element.uri = uri
        element.defaultUri = self._namespace if parent is None or parent.uri is None else parent.defaultUri
        # domish cannot write a prefix that means two things in one stanza, nor its own 'xn0' when that
        # means another: without an entry here it makes up a prefix that means one.
        if not prefix.startswith("xn") and self._prefixes.setdefault(prefix, uri) == uri:
            element.localPrefixes[prefix] = uri

    def _header(self, element: Element) -> None:
        element.defaultUri = self._default
        self._root = element
        self._expat.StartNamespaceDeclHandler = _declared
        self._stanza_start = self._expat.CurrentByteIndex
        self._started(element)
        if self._stopped:
            raise _Stopped

    def _end(self, name: str) -> None:
        element = self._current
        if element is None:
            self.stop()
            self._ended()
            raise _Stopped
        if self._text:
            self._flush(element.children)
        self._current = parent = element.parent
        if parent is not None:
            self._depth -= 1
            return
        end = self._expat.CurrentByteIndex
        if end - self._stanza_start > self._max_size:
            raise StreamFault("policy-violation", f"a stanza has {self._max_size} bytes at the most")
        start = self._stanza_start - self._segment_start
        if start >= 0 and self._plain and element.children:
            element.raw = self._segment[start : end - self._segment_start]  # type: ignore[attr-defined]
        self._stanza_start = end
        self._rescanned = 0
        if self._prefixes:
            self._prefixes.clear()
        if len(self._names) != self._known_names:
            self._check_names()
        self._received(element)
        if self._stopped:
            raise _Stopped

    def _flush(self, children: list[Any]) -> None:
        text = self._text
        children.append(text[0] if len(text) == 1 else "".join(text))
        text.clear()

    def _characters(self, data: str) -> None:
        if self._current is not None:
            self._text.append(data)
        elif self._stopped:
            return  # pyexpat hands over what it has left when the handler is taken away
        elif data.strip(" \t\r\n"):
            raise StreamFault("bad-format", "text between stanzas")
        elif self._keepalives:
            # Whitespace (RFC 6120 section 4.6.1) is no part of the stanza after it.
            self._stanza_start = self._expat.CurrentByteIndex
            self._rescanned = 0

    def _declare(self, prefix: str | None, uri: str | None) -> None:
        # Of the header alone: it shows which namespace its children are in.
        if prefix is None:
            self._default = uri or ""
        elif prefix != "stream":
            self._plain = False

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if encoding is not None and encoding.upper() != "UTF-8":
            raise StreamFault("unsupported-encoding", "UTF-8 only")

    def _refuse(self, *_: object) -> None:
        raise StreamFault("restricted-xml", "no comments, processing instructions, DTDs or entities")

    def _check_names(self) -> None:
        new = islice(self._names, self._known_names, None)
        self._name_size += sum(len(name) for name in new if name)
        self._known_names = len(self._names)
        if self._name_size > MAX_NAMES:
            raise StreamFault("policy-violation", "too many different names")


def _check_beginning(data: bytes) -> None:
    """
    Refuse at once what is no XML. There may be no '>' in it for long: who tries TLS on a port with STARTTLS,
    as some clients do first, sends nothing more before our answer.
    """
    first = data[:1]
    if first in b"<\xef \t\r\n":  # \xef: the UTF-8 mark
        return
    if first in b"\xff\xfe":
        raise StreamFault("unsupported-encoding", "UTF-8 only")
    if first == b"\x16":
        raise StreamFault("not-well-formed", "TLS at once, on a port that begins without it")
    raise StreamFault("not-well-formed", "no XML")


_new = Element.__new__


def _declared(prefix: str | None, uri: str | None) -> None:
    """Nothing to do, but pyexpat has put both among the names: expat never forgets a prefix either."""


def _split(name: str) -> _Name:
    """Out of expat's ``uri local prefix``, ``uri local`` or ``local``."""
    parts = name.split(" ")
    if len(parts) == 1:
        return ("", name, None)
    if _NOT_A_URI.search(parts[0]):
        raise StreamFault("invalid-xml", "a namespace name is no URI")
    return (parts[0], parts[1], parts[2] if len(parts) == 3 else None)


def stanza_of(xml: str) -> Element:
    """A stanza that was serialised for a client, as the stream gave it."""
    stanzas: list[Element] = []
    elements: list[Element] = []
    data = f"<stream:stream xmlns='{CLIENT}' xmlns:stream='{STREAMS}'>{xml}".encode()
    parser = StreamParser(elements.append, stanzas.append, elements.clear, len(data))
    parser.feed(data)
    parser.close()
    return stanzas[0]
