import time
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.words.xish.domish import Element

from xmpppush.server.parser import MAX_DEPTH, MAX_NAMES, StreamFault, StreamParser

CLIENT = "jabber:client"
XML = "http://www.w3.org/XML/1998/namespace"
HEADER = (
    b"<?xml version='1.0'?><stream:stream xmlns='jabber:client'"
    b" xmlns:stream='http://etherx.jabber.org/streams' to='localhost' version='1.0'>"
)
LAUGHS = (
    "<?xml version='1.0'?><!DOCTYPE l [<!ENTITY a0 'ha'>"
    + "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10))
    + "]><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
    "<message><body>&a9;</body></message>"
).encode()


class Reader:
    """A parser and what it called back with."""

    def __init__(self, max_size: int = 262144, header: bytes = HEADER, **options: bool) -> None:
        self.headers: list[Element] = []
        self.stanzas: list[Element] = []
        self.ends = 0
        self.parser = StreamParser(self.headers.append, self.received, self.ended, max_size, **options)
        if header:
            self.parser.feed(header)

    def received(self, element: Element) -> None:
        self.stanzas.append(element)

    def ended(self) -> None:
        self.ends += 1

    def feed(self, *data: str | bytes) -> "Reader":
        for part in data:
            self.parser.feed(part.encode() if isinstance(part, str) else part)
        return self

    def one(self, xml: str) -> Element:
        self.feed(xml)
        assert len(self.stanzas) == 1
        return self.stanzas.pop()

    def fault(self, *data: str | bytes) -> str:
        with pytest.raises(StreamFault) as caught:
            self.feed(*data)
        return caught.value.condition


@pytest.fixture
def reader() -> Reader:
    return Reader()


def test_header_keeps_its_names(reader):
    """The header's namespaces are explicit, so that they can be checked."""
    [header] = reader.headers
    assert (header.uri, header.name) == ("http://etherx.jabber.org/streams", "stream")
    assert header.defaultUri == CLIENT
    assert header.attributes == {"to": "localhost", "version": "1.0"}


def test_stanza_in_the_stream_namespace_has_none(reader):
    """A stanza and its children of the content namespace have uri and defaultUri None."""
    message = reader.one("<message to='bob@localhost'><body>Hi &amp; bye</body></message>")
    assert type(message) is Element
    assert message.parent is None
    assert (message.uri, message.defaultUri, message.name) == (None, None, "message")
    assert (message.body.uri, message.body.defaultUri) == (None, None)
    assert message.body.parent is message
    assert str(message.body) == "Hi & bye"


def test_explicit_declaration_of_the_stream_namespace_is_the_same(reader):
    """Clients that repeat xmlns='jabber:client', or use a prefix for it, are understood."""
    plain = reader.one("<message xmlns='jabber:client'><body>Hi</body></message>")
    prefixed = reader.one("<c:message xmlns:c='jabber:client'><c:body>Hi</c:body></c:message>")
    assert plain.toXml() == prefixed.toXml() == "<message><body>Hi</body></message>"


def test_stream_namespace_inside_another_stays_explicit(reader):
    """A forwarded message (XEP-0297) can be told from a real one, and its children too."""
    carbon = reader.one(
        "<message><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>"
        "<message xmlns='jabber:client' from='x@y'><body>Hi</body></message></forwarded></received></message>"
    )
    inner = carbon.received.forwarded.message
    assert (inner.uri, inner.defaultUri) == (CLIENT, CLIENT)
    assert inner.body.uri == CLIENT
    assert "<message xmlns='jabber:client' from='x@y'><body>Hi</body></message>" in carbon.toXml()


def test_stanza_of_another_namespace_is_not_ours(reader):
    """A message of jabber:server in a client's stream keeps its namespace."""
    message = reader.one("<message xmlns='jabber:server'><body/></message>")
    assert (message.uri, message.body.uri) == ("jabber:server", "jabber:server")


@pytest.mark.parametrize(
    "xml",
    [
        "<message xml:lang='de'><body xml:lang='en'>Hi</body></message>",
        "<message><x xmlns='jabber:x:data' type='form'><field var='a'><value>1</value></field></x></message>",
        "<message><p:x xmlns:p='urn:p' p:a='1' b='2'><p:y/></p:x></message>",
        "<message xmlns:p='urn:p' p:a='1'><q:x xmlns:q='urn:q' p:a='1'/></message>",
        "<message><x xmlns='urn:x'><y xmlns='urn:y'/><message xmlns='jabber:client'/></x></message>",
        "<message><x xmlns='urn:x'><y xmlns=''><z/></y></x><body>text</body></message>",
        "<message><x xmlns=''/></message>",
        "<message><a:x xmlns:a='urn:a'><child/></a:x></message>",
        "<message><a:x xmlns:a='urn:a' xmlns='urn:d'><child/></a:x></message>",
        # One prefix for two namespaces: domish alone would write the inner element into the wrong one.
        "<message><p:a xmlns:p='urn:1'><p:b xmlns:p='urn:2'><c xmlns='urn:1'/></p:b></p:a></message>",
        "<message><xn0:a xmlns:xn0='urn:1'><b xmlns='urn:2' xmlns:q='urn:3' q:r='s'/></xn0:a></message>",
        "<message><body>&lt;a&gt; &amp;amp; &quot;&apos; ]]&gt; \U0001f600 &#x10FFFF;</body></message>",
        "<message to='a&apos;b&quot;c&lt;d&amp;e'/>",
        "<message><body><![CDATA[<not><a><tag>]]></body></message>",
    ],
)
def test_serialising_gives_the_stanza_back(xml):
    """What domish writes of a stanza means what was read, with the stream's namespace around it."""
    first = Reader().one(xml)
    again = Reader().one(first.toXml(defaultUri=CLIENT))
    assert _meaning(again) == _meaning(first)


def _meaning(element: Element) -> tuple:
    children = [child if isinstance(child, str) else _meaning(child) for child in element.children]
    return (element.uri, element.name, dict(element.attributes), children)


def test_language_and_foreign_attributes_have_qualified_keys(reader):
    """xml:lang arrives under its namespace, as domish has it."""
    message = reader.one("<message xml:lang='de' xmlns:p='urn:p' p:a='1' b='2'/>")
    assert message.attributes == {(XML, "lang"): "de", ("urn:p", "a"): "1", "b": "2"}


def test_text_around_elements_keeps_its_place(reader):
    """Mixed content stays in order."""
    message = reader.one("<message>a<b/>c<d>e</d>f</message>")
    assert [c if isinstance(c, str) else c.name for c in message.children] == ["a", "b", "c", "d", "f"]


def test_stanza_in_single_octets():
    """A client may send one octet at a time; nothing waits longer than for its '>'."""
    reader = Reader(header=b"")
    reader.feed(*(bytes([octet]) for octet in HEADER))
    assert len(reader.headers) == 1
    xml = "<message to='b&gt;ob'><body>Grüße <![CDATA[>]]></body></message>".encode()
    reader.feed(*(bytes([octet]) for octet in xml))
    [message] = reader.stanzas
    assert message["to"] == "b>ob"
    assert str(message.body) == "Grüße >"


def test_many_stanzas_in_one_segment(reader):
    """Together they may be larger than one may be."""
    reader.feed(b"<message><body>Hi</body></message>" * 10_000)
    assert len(reader.stanzas) == 10_000


def test_end_of_stream(reader):
    """The closing tag is told once, and nothing after it is read."""
    reader.feed("<presence/></stream:stream><<<")
    assert (len(reader.stanzas), reader.ends) == (1, 1)
    reader.feed("<presence/>")
    assert len(reader.stanzas) == 1


def test_stop_drops_the_rest_of_the_segment(reader):
    """What was pipelined behind <starttls/> is never looked at (CVE-2011-0411)."""

    def stop(element: Element) -> None:
        reader.stanzas.append(element)
        reader.parser.stop()

    reader = Reader(header=b"")
    reader.parser = StreamParser(reader.headers.append, stop, reader.ended)
    reader.feed(HEADER, "<starttls/><message/><<<")
    assert [stanza.name for stanza in reader.stanzas] == ["starttls"]


def test_close_breaks_the_cycle(reader):
    """A closed parser reads nothing and may be closed again."""
    reader.parser.close()
    reader.parser.close()
    reader.feed("<presence/>")
    assert reader.stanzas == []


@pytest.mark.parametrize(
    ("xml", "condition"),
    [
        ("<message><body></message>", "not-well-formed"),
        ("<message <>", "not-well-formed"),
        ("<message>\0</message>", "not-well-formed"),
        (b"<message>\xff</message>", "not-well-formed"),
        ("<message>&#0;</message>", "not-well-formed"),
        ("<message a='1' a='2'/>", "not-well-formed"),
        ("</message>", "not-well-formed"),
        ("<!DOCTYPE x>", "not-well-formed"),
        ("<?xml version='1.0'?>", "not-well-formed"),
        ("<p:message/>", "bad-namespace-prefix"),
        ("<message p:a='1'/>", "bad-namespace-prefix"),
        ("<message><!-- hello --></message>", "restricted-xml"),
        ("<?php x?>", "restricted-xml"),
        ("<message>&nbsp;</message>", "restricted-xml"),
        ("<message a='&nbsp;'/>", "restricted-xml"),
        ("hello<presence/>", "bad-format"),
        ("<message xmlns='x&apos;/&gt;&lt;iq'/>", "invalid-xml"),
        ("<message><p:a xmlns:p='a&lt;b'/></message>", "invalid-xml"),
        ("<message xmlns:p='a&quot;b' p:c=''/>", "invalid-xml"),
        ("<message>" + "<a>" * MAX_DEPTH, "policy-violation"),
        ("<message>" + "<a/>" * 5000, "policy-violation"),
        ("<message " + " ".join(f"a{n}=''" for n in range(100)) + "/>", "policy-violation"),
    ],
)
def test_what_is_refused(reader, xml, condition):
    """Each has the stream error of RFC 6120 section 4.9.3, and nothing is read after it."""
    assert reader.fault(xml) == condition
    assert reader.feed("<presence/>").stanzas == []


@pytest.mark.parametrize(
    ("document", "condition"),
    [
        (LAUGHS, "restricted-xml"),
        (b"<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>", "restricted-xml"),
        (b"<!DOCTYPE a [<!ENTITY % b SYSTEM 'http://localhost/'> %b;]><a/>", "restricted-xml"),
        (b"<!-- hello --><a/>", "restricted-xml"),
        (b"<?xml version='1.0' encoding='ISO-8859-1'?><a/>", "unsupported-encoding"),
        (HEADER.decode().encode("utf-16"), "unsupported-encoding"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + b"<a>", "not-well-formed"),
        (b"\x16\x03\x01\x02\x00\x01\x00>", "not-well-formed"),
        (b"<stream:stream>", "bad-namespace-prefix"),
        (b" " * 20_000, "policy-violation"),
        (b"x" * 20_000, "not-well-formed"),
        (b"<a b='" + b"x" * 20_000, "policy-violation"),
    ],
)
def test_what_no_stream_begins_with(document, condition):
    """Refused before there is a stream."""
    reader = Reader(16384, header=b"")
    assert reader.fault(document) == condition
    assert reader.headers == []


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", "not-well-formed: TLS at once, on a port that begins without it"),
        (b"\x16", "not-well-formed: TLS at once, on a port that begins without it"),
        (b"GET / HTTP/1.1\r\n", "not-well-formed: no XML"),
        (b"\xff\xfe<", "unsupported-encoding: UTF-8 only"),
    ],
)
def test_what_is_no_xml_is_refused_at_once(first, reason):
    """Not when there is a '>' in it: who begins with TLS waits for our answer, and would do so for long."""
    reader = Reader(16384, header=b"")
    with pytest.raises(StreamFault) as caught:
        reader.feed(first)
    assert str(caught.value) == reason


@pytest.mark.parametrize("before", [b"", b"\r\n", b" ", b"\xef\xbb\xbf"])
def test_a_stream_may_begin_with_white_space_or_a_mark(before):
    """With either the header is still one; an XML declaration stands at the very beginning."""
    reader = Reader(16384, header=b"")
    reader.feed(before, HEADER[HEADER.index(b"<stream") :])
    assert len(reader.headers) == 1


def test_faults_say_nothing_about_the_content(reader):
    """Neither the exception nor its repr quotes the stream."""
    with pytest.raises(StreamFault) as caught:
        reader.feed("<message secret='token'><body></token></message>")
    assert "token" not in repr(caught.value) + str(caught.value)


@pytest.mark.parametrize("split", [1, 300, 995, 10_000])
@pytest.mark.parametrize("before", [b"", b"<presence/>" * 300, b" " * 100])
def test_size_is_counted_by_stanza(split, before):
    """A stanza of the limit passes wherever segments end, a larger one does not (closing tag aside)."""
    fits = b"<message>" + b"x" * 981 + b"</message>"
    assert len(fits) == 1000
    reader = Reader(1000).feed(before, fits[:split], fits[split:])
    assert str(reader.stanzas[-1]) == "x" * 981
    too_large = fits.replace(b"x", b"x" * 12, 1)
    assert Reader(1000).feed(before).fault(too_large[:split], too_large[split:]) == "policy-violation"


def test_keepalives_may_go_on_for_ever():
    """Whitespace between stanzas never adds up to a stanza, once the client is known."""
    reader = Reader(20_000, keepalives=True)
    for _ in range(100):
        reader.feed(b" " * 1000)
    reader.feed(b"\n<presence/>")
    assert len(reader.stanzas) == 1


def test_whitespace_comes_to_an_end_before_authentication():
    """Without knowing the client even whitespace counts."""
    reader = Reader(16384)
    assert reader.fault(*[b"\n" * 1000] * 20) == "policy-violation"


def test_names_are_not_kept_without_limit():
    """expat remembers each element and attribute name of a stream: there is an end to new ones."""
    stanzas = (b"<message a%d=''><b%d/></message>" % (n, n) for n in count())
    found, taken, _ = _limited(Reader(262144), stanzas)
    assert found == "policy-violation"
    assert taken < 20 * MAX_NAMES


def test_prefixes_are_not_kept_without_limit():
    """Nor are there more and more prefixes, which expat never forgets either."""
    stanzas = (b"<message xmlns:p%d='u'><b xmlns:q%d='u'/></message>" % (n, n) for n in range(20_000))
    found, taken, _ = _limited(Reader(262144), stanzas)
    assert found == "policy-violation"
    assert taken < 20 * MAX_NAMES


def test_one_namespace_may_be_declared_for_ever(reader):
    """What is declared again and again is one name."""
    reader.feed(b"<message xmlns:p='urn:p'><p:b xmlns='urn:b'/></message>" * 10_000)
    assert len(reader.stanzas) == 10_000


def _limited(reader: Reader, segments: Iterator[bytes]) -> tuple[str | None, int, float]:
    """Feed until it is refused: condition, octets taken, CPU seconds."""
    taken = 0
    before = time.process_time()
    try:
        for segment in segments:
            taken += len(segment)
            reader.parser.feed(segment)
    except StreamFault as fault:
        return fault.condition, taken, time.process_time() - before
    return None, taken, time.process_time() - before


def _cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def _endless(segment: bytes) -> Iterator[bytes]:
    while True:
        yield segment


LIMIT = 262144
ATTACKS = {
    "billion laughs": (b"", LAUGHS, 65536, "restricted-xml"),
    "billion laughs, dripping": (b"", LAUGHS, 1, "restricted-xml"),
    "1 MB of newlines": (HEADER, b"<message><body>" + b"\n" * 2**20, 65536, "policy-violation"),
    "1 MB of newlines at once": (HEADER, b"<message><body>" + b"\n" * 2**20, 2**21, "policy-violation"),
    "1 MB of newlines, small segments": (HEADER, b"<message><body>" + b"\n" * 2**20, 512, "policy-violation"),
    "depth 10^5": (HEADER, b"<message>" + b"<a>" * 10**5, 65536, "policy-violation"),
    "depth 10^5 at once": (HEADER, b"<message>" + b"<a>" * 10**5, 2**20, "policy-violation"),
    "one attribute": (HEADER, b"<message a='" + b"x" * 2**20, 512, "policy-violation"),
    "one attribute with >": (HEADER, b"<message a='" + b">" * 2**20, 16, "policy-violation"),
    "many attributes": (
        HEADER,
        b"<message " + b" ".join(b"a%d=''" % n for n in range(10**5)),
        65536,
        "policy-violation",
    ),
    "many namespaces": (
        HEADER,
        b"<message>" + b"".join(b"<a xmlns:p%d='u%d'>" % (n, n) for n in range(10**5)),
        65536,
        "policy-violation",
    ),
    "many children": (HEADER, b"<message>" + b"<a/>" * 10**5, 65536, "policy-violation"),
    "CDATA": (HEADER, b"<message><![CDATA[" + b"]>[" * 10**6, 65536, "policy-violation"),
    "character references": (HEADER, b"<message>" + b"&#10;" * 10**6, 65536, "policy-violation"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_cheap(name):
    """Each ends with its stream error, a little beyond the limit at most, and costs next to no CPU."""
    header, data, size, condition = ATTACKS[name]
    reader = Reader(LIMIT, header)
    found, taken, cpu = _limited(reader, _cut(data, size))
    assert found == condition
    assert taken <= LIMIT + size + 16384 or size > LIMIT
    assert reader.stanzas == []
    assert cpu < 2.0  # 0.2 on a quiet machine; an attack that works takes minutes


def test_stanza_that_never_ends_is_refused_at_the_limit():
    """No more than the limit and a slice is read of it."""
    for start, segment in ((HEADER + b"<message>", b"x" * 1000), (HEADER, b"<a" * 500), (b"", b" " * 1000)):
        found, taken, _ = _limited(Reader(LIMIT, start), _endless(segment))
        assert found in ("policy-violation", "not-well-formed")
        assert taken <= LIMIT + 16384


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_octets_are_read_or_refused(data, size):
    """Whatever comes, in whatever pieces: elements or a StreamFault, never another exception."""
    for header in (b"", HEADER, HEADER + b"<message><body>"):
        _limited(Reader(16384, header), _cut(data, size))
