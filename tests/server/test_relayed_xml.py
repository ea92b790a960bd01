"""A stanza passed on in its own octets means what it would mean written anew."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.words.xish.domish import Element

from xmpppush.server.parser import StreamParser, stanza_of
from xmpppush.xep.xml import relayed_xml, to_xml

STREAMS = "xmlns:stream='http://etherx.jabber.org/streams'"
PLAIN = f"<stream:stream xmlns='jabber:client' {STREAMS}>"
PREFIXED = f"<stream:stream xmlns='jabber:client' {STREAMS} xmlns:a='urn:a'>"
NO_DEFAULT = f"<stream:stream {STREAMS} xmlns:c='jabber:client'>"


def received(xml, header=PLAIN):
    """The stanzas that a stream gives, in one segment."""
    stanzas = []
    parser = StreamParser(lambda _: None, stanzas.append, lambda: None)
    parser.feed(f"{header}{xml}".encode())
    return stanzas


def tree(element):
    """What an element means, whatever prefixes say it with."""
    children, text = [], ""
    for child in element.children:
        if isinstance(child, str):
            text += child
        else:
            children += [text, tree(child)]
            text = ""
    return (element.uri, element.name, dict(element.attributes), [*children, text])


@pytest.mark.parametrize(
    ("xml", "as_written"),
    [
        ("<message to='a@b'><body>hi &amp; <![CDATA[<b>]]>\u00e9</body></message>", True),
        ("<message to='a@b'\n id = \"1\" ><body >x</body ><x xmlns='urn:x' k='&gt;>'/></message>", True),
        ("<message xml:lang='de'><body xml:lang='en'>x</body></message>", True),
        ("<message xmlns='jabber:client'><y:x xmlns:y='urn:y'><y:z/></y:x></message>", True),
        ("<message id='a&apos;b'><body>x</body></message>", False),
        ("<message id='a>b'><body>x</body></message>", False),
        ("<message xmlns:y='urn:y'><body y:k='1'/></message>", False),
        ("<y:message xmlns:y='jabber:client'><y:body>x</y:body></y:message>", False),
        ("<message><stream:x/></message>", False),
        ("<message/>", False),
        ("<message></message>", False),
    ],
)
def test_where_nothing_from_outside_is_needed(xml, as_written):
    """What is inside goes on as it came, unless it may need more than is there."""
    (stanza,) = received(xml)
    stanza["from"] = "me@here/desk"
    relayed = relayed_xml(stanza)
    inside = xml[xml.index(">") + 1 : xml.rindex("<")]
    assert (relayed != to_xml(stanza) or inside in relayed) if as_written else relayed == to_xml(stanza)
    assert tree(stanza_of(relayed)) == tree(stanza)


@pytest.mark.parametrize(
    ("header", "xml"),
    [
        (PREFIXED, "<message><a:x/></message>"),
        (PREFIXED, "<message><x a:k='1'/></message>"),
        (NO_DEFAULT, "<c:message><c:body>x</c:body></c:message>"),
    ],
)
def test_prefixes_of_the_header(header, xml):
    """A prefix that the header of the sender's stream declares means nothing in another stream."""
    (stanza,) = received(xml, header)
    relayed = relayed_xml(stanza)
    assert relayed == to_xml(stanza)
    assert tree(stanza_of(relayed)) == tree(stanza)


def test_each_stanza_of_a_segment():
    """Each has its own octets, whitespace between them or not."""
    stanzas = received("".join(f"<message id='{n}'><body>{n}</body></message> " for n in range(5)))
    for n, stanza in enumerate(stanzas):
        assert relayed_xml(stanza) == f"<message id='{n}'><body>{n}</body></message>"


@pytest.mark.parametrize("cut", range(len(PLAIN) + 1, len(PLAIN) + 40))
def test_in_two_segments(cut):
    """Wherever a segment ends, the stanza is whole."""
    stanzas = []
    parser = StreamParser(lambda _: None, stanzas.append, lambda: None)
    data = f"{PLAIN}<message id='1'><body>one</body></message><message id='2'><body>two</body></message>"
    parser.feed(data[:cut].encode())
    parser.feed(data[cut:].encode())
    assert [relayed_xml(stanza) for stanza in stanzas] == [to_xml(stanza) for stanza in stanzas]
    assert len(stanzas) == 2


NAMES = st.sampled_from(["message", "body", "x"])
TEXT = st.text(st.sampled_from("ab&<>'\" é\n"), max_size=5)
NO_URI = st.none()
KEYS = NAMES | st.just(("http://www.w3.org/XML/1998/namespace", "lang")) | st.just(("urn:y", "k"))


@st.composite
def messages(draw, depth=2, uri=NO_URI):
    """Elements as a client may build them."""
    own = draw(uri)
    element = Element((own, draw(NAMES)), own, draw(st.dictionaries(KEYS, TEXT, max_size=2)))
    for child in (
        draw(st.lists(TEXT | messages(depth - 1, st.sampled_from([None, "urn:x"])), max_size=3))
        if depth
        else ()
    ):
        element.addChild(child)
    return element


@given(messages())
@settings(deadline=None)
def test_means_the_same(element):
    """Whatever comes in."""
    (stanza,) = received(element.toXml(defaultUri="jabber:client"))
    assert tree(stanza_of(relayed_xml(stanza))) == tree(stanza_of(to_xml(stanza)))
