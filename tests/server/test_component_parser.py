"""No stanza of a user ends a component's stream."""

import pytest

from xmpppush.server.component_parser import ComponentParser
from xmpppush.server.parser import MAX_ELEMENTS, MAX_NAMES, StreamFault
from xmpppush.xep.namespaces import COMPONENT, STREAMS

HEADER = f"<stream:stream xmlns='{COMPONENT}' xmlns:stream='{STREAMS}' xmlns:db='jabber:server:dialback'>"
LIMIT = 64 * 1024


class Reader:
    def __init__(self):
        self.whole, self.broken, self.ended = [], [], []
        self.parser = ComponentParser(
            lambda _: None,
            self.whole.append,
            lambda: self.ended.append(1),
            self.broken.append,
            LIMIT,
            COMPONENT,
        )
        self.feed(HEADER)

    def feed(self, text, size=None):
        data = text.encode()
        for start in range(0, len(data), size or len(data)):
            self.parser.feed(data[start : start + (size or len(data))])


@pytest.fixture
def reader():
    return Reader()


TOO_MUCH = {
    "deep": "<iq id='b'>" + "<a>" * 150 + "</a>" * 150 + "</iq>",
    "many": "<iq id='b'>" + "<a/>" * (MAX_ELEMENTS + 10) + "</iq>",
    "long text": "<iq id='b'><a>" + "x" * (4 * LIMIT) + "</a></iq>",
    "long attribute": "<iq id='b'><a b='" + "x" * (4 * LIMIT) + "'/></iq>",
    "attributes": "<iq id='b'><a " + " ".join(f"a{n}=''" for n in range(80)) + "><b>x</b></a></iq>",
    "namespace": "<iq id='b'><a xmlns='&apos;&gt;'><c/></a></iq>",
}


@pytest.mark.parametrize("name", TOO_MUCH)
@pytest.mark.parametrize("size", [None, 1000])
def test_too_much_is_told_and_the_next_one_comes(reader, name, size):
    """The stanza is handed over as broken, with its attributes, and those behind it are whole."""
    reader.feed("<iq id='a'><x/></iq>" + TOO_MUCH[name] + "<iq id='c'><y>z</y></iq>", size)
    assert [stanza["id"] for stanza in reader.broken] == ["b"]
    assert [stanza["id"] for stanza in reader.whole] == ["a", "c"]
    assert str(reader.whole[1].y) == "z"
    assert reader.parser.between_stanzas


def test_a_stanza_that_is_too_much_by_itself(reader):
    """Not even its attributes are kept."""
    reader.feed("<iq " + " ".join(f"a{n}=''" for n in range(80)) + "><b>x<c/></b></iq><iq id='c'/>")
    assert reader.broken == [None]
    assert [stanza["id"] for stanza in reader.whole] == ["c"]


def test_little_is_kept_of_what_is_too_large(reader):
    """Memory is bounded by the limit, not by the stanza."""
    reader.feed("<iq id='b'>" + "<a>xxxxxxxxxxxxxxxx</a>" * 40_000, 10_000)
    reader.feed("</iq>")
    assert len(reader.broken[0].toXml()) < 2 * LIMIT


def test_names_are_forgotten_with_a_new_parser(reader):
    """However many different names users think of, the stream goes on, prefixes of the header included."""
    stanza, number = 0, 0
    while number * 100 < 3 * MAX_NAMES:
        elements = "".join(f"<n{number + n}{'x' * 90}/>" for n in range(100))
        reader.feed(f"<message id='{stanza}'>{elements}</message>")
        stanza, number = stanza + 1, number + 100
        if reader.parser.is_worn:
            reader.parser = reader.parser.renewed()
    assert [element["id"] for element in reader.whole] == [str(n) for n in range(stanza)]
    reader.feed("<iq id='z'><db:verify/></iq></stream:stream>")
    assert reader.whole[-1].firstChildElement().uri == "jabber:server:dialback"
    assert reader.ended == [1]


def test_between_stanzas(reader):
    """Only there may octets be taken past the parser."""
    for piece, between in (
        ("<iq id='a'>", False),
        ("</i", False),
        ("q>", True),
        ("<", False),
        ("iq/>", True),
        (" \n", False),  # held until there is a '>'
        ("<iq id='x" + "x" * 5000, False),
        ("'/><", False),
        ("message/>", True),
    ):
        reader.feed(piece)
        assert reader.parser.between_stanzas is between, piece


@pytest.mark.parametrize("text", ["<!DOCTYPE a [<!ENTITY b 'c'>]>", "<a></b>", "<!-- -->", "text<a/>"])
def test_what_only_a_server_can_do_wrong_ends_the_stream(reader, text):
    """A server writes XML as RFC 6120 section 11 has it, whatever its users send."""
    with pytest.raises(StreamFault):
        reader.feed(text)
