"""Data forms, read loosely and built."""

import pytest

from xmpppush._wokkel import generic
from xmpppush.errors import BadForm
from xmpppush.xep.dataforms import Field, Form, fields_of, form_element, form_in, forms_in, text_of

A_FORM = """<p><x xmlns='jabber:x:data' type='submit'>
  <field var='FORM_TYPE'{hidden}><value>urn:a</value></field>
  <field var='one'><value>1</value></field>
  <field var='none'/>
  <field var='empty'><value/></field>
  <field var='two'><value>a</value><value>b</value></field>
  <field var='one'><value>2</value></field>
  <field type='fixed'><value>Hello</value></field>
  <title>t</title><reported/>
</x></p>"""


def parse(xml):
    return generic.parseXml(xml.encode())


@pytest.mark.parametrize("hidden", ["", " type='hidden'", " type='text-single'"])
def test_form_type_counts_whatever_its_field_type(hidden):
    """XEP-0357's own examples leave type='hidden' out."""
    assert fields_of(parse(A_FORM.format(hidden=hidden)), "urn:a") == {
        "one": "2",
        "none": "",
        "empty": "",
        "two": "a",
    }


def test_other_form_types_are_not_read():
    """Forms with another FORM_TYPE are somebody else's."""
    assert fields_of(parse(A_FORM.format(hidden="")), "urn:b") == {}
    assert fields_of(parse("<p/>"), "urn:a") == {}


def test_first_form_of_its_type_counts():
    """Of two forms with the FORM_TYPE the first is read."""
    both = parse("<p/>")
    both.addChild(form_element("submit", "urn:b", {"v": "0"}))
    both.addChild(form_element("submit", "urn:a", {"v": "1"}))
    both.addChild(form_element("submit", "urn:a", {"v": "2"}))
    assert fields_of(both, "urn:a") == {"v": "1"}
    assert [form.form_type for form in forms_in(both)] == ["urn:b", "urn:a", "urn:a"]


def test_form_in_keeps_what_was_sent():
    """Type, order, repetitions and several values are there for who is strict."""
    form = form_in(parse(A_FORM.format(hidden="")))
    assert (form.type, form.form_type) == ("submit", "urn:a")
    assert [(field.var, field.values) for field in form.fields] == [
        ("FORM_TYPE", ("urn:a",)),
        ("one", ("1",)),
        ("none", ()),
        ("empty", ("",)),
        ("two", ("a", "b")),
        ("one", ("2",)),
        ("", ("Hello",)),
    ]


def test_no_form_is_none():
    """Elements called x of another namespace are no forms, nor are forms further down."""
    assert form_in(parse("<p><x xmlns='urn:x'/><q><x xmlns='jabber:x:data'/></q></p>")) is None


@pytest.mark.parametrize(
    "fields",
    [
        (Field("a", ()),),
        (Field("a", ("1", "2")),),
        (Field("", ("1",)),),
        (Field("FORM_TYPE", ("urn:a", "urn:b")),),
    ],
)
def test_single_values_refuses(fields):
    """A field without a name or without exactly one value is a bad form."""
    with pytest.raises(BadForm):
        Form("submit", fields).single_values()


def test_single_values_takes_the_last_of_a_name():
    """MongooseIM's rule, observed; text for people is no field."""
    form = Form("submit", (Field("a", ("1",)), Field("", (), "fixed"), Field("a", ("",))))
    assert form.single_values() == {"a": ""}


def test_form_without_form_type():
    """A missing FORM_TYPE is None, a valueless one is empty."""
    assert Form("", ()).form_type is None
    assert Form("", (Field("FORM_TYPE"),)).form_type == ""


def test_built_form_reads_back():
    """What is built is read as it was given, markup characters too."""
    values = {"a": "<&'\">", "é": "🌹", "empty": ""}
    parent = parse("<p/>")
    parent.addChild(form_element("submit", "urn:a", values))
    again = parse(parent.toXml())
    assert fields_of(again, "urn:a") == values
    assert form_in(again).type == "submit"


def test_text_of_joins_pieces():
    """Text that a parser delivered in pieces is one text."""
    element = parse("<p/>").addElement("v", content="a")
    element.addElement("c", content="no")
    element.children += ["b", "c"]
    assert text_of(element) == "abc"
    assert text_of(parse("<v/>")) == ""


def test_values_are_no_part_of_repr():
    """A value may be a device token."""
    assert "secret-token" not in repr(Form("submit", (Field("device_id", ("secret-token",)),)))
