"""Quick serialising gives what domish gives, to the letter."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.words.xish.domish import Element

from xmpppush.xep.xml import to_xml

NAMES = st.sampled_from(["message", "body", "x", "field"])
URIS = st.sampled_from([None, "", "jabber:client", "jabber:x:data", "urn:x"])
TEXT = st.text(st.sampled_from("ab&<>'\" é"), max_size=5)
KEYS = NAMES | st.just(("http://www.w3.org/XML/1998/namespace", "lang")) | st.just(("urn:y", "k"))


@st.composite
def elements(draw, depth=3):
    uri, default = draw(URIS), draw(URIS)
    if draw(st.integers(0, 3)):
        default = uri  # as the parser makes nearly all of them
    attributes = draw(st.dictionaries(KEYS, TEXT, max_size=3))
    prefixes = {"p": "urn:x"} if draw(st.integers(0, 9)) == 0 else {}
    element = Element((uri, draw(NAMES)), default, attributes, prefixes)
    if depth:
        for child in draw(st.lists(TEXT | elements(depth=depth - 1), max_size=3)):
            element.addChild(child)
    return element


@given(elements())
@settings(deadline=None)
def test_the_same_as_domish(element):
    """With and without prefixes, namespaces, text that needs escaping."""
    assert to_xml(element) == element.toXml(defaultUri="jabber:client")
