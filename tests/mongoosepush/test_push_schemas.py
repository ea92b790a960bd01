"""What MongoosePush's API accepts, and what it says about the rest (observed on MongoosePush 2.2.0)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmpppush.mongoosepush import schemas
from xmpppush.mongoosepush.schemas import Check, InvalidRequest, read_request, shape_of

ALERT = {"title": "t", "body": "b"}


def v3(**fields):
    return {"service": "fcm", "alert": ALERT, **fields}


def problems(version, body):
    with pytest.raises(InvalidRequest) as error:
        read_request(version, body)
    return [(problem.pointer, problem.message) for problem in error.value.problems]


@pytest.mark.parametrize(
    ("version", "body", "expected"),
    [
        ("v1", {"service": "apns", "title": "t", "body": "b"}, {"service": "apns", "alert": ALERT}),
        (
            "v1",
            {"service": "fcm", "title": "t", "body": "b", "badge": "7", "topic": "x", "data": {"k": 1}},
            {"service": "fcm", "alert": {**ALERT, "badge": 7}, "topic": "x", "data": {"k": 1}},
        ),
        ("v2", v3(time_to_live="+60", mutable_content="true"), v3(time_to_live=60, mutable_content=True)),
        ("v3", v3(time_to_live="-5", tags=["a", ""]), v3(time_to_live=-5, tags=["a", ""])),
        ("v3", v3(time_to_live="060", mutable_content="false"), v3(time_to_live=60, mutable_content=False)),
        ("v3", {"service": "apns", "data": {}}, {"service": "apns", "data": {}}),
        ("v3", v3(data={"k": None}), v3(data={"k": None})),
    ],
)
def test_what_is_accepted_becomes_a_v3_request(version, body, expected):
    """Version 1 is put into an alert; strings become the numbers and booleans that they stand for."""
    assert read_request(version, body) == expected


@pytest.mark.parametrize(
    ("version", "body", "expected"),
    [
        (
            "v1",
            {"service": "fcm", "body": "hi", "title": "a", "tag": "a", "badge": 1, "click_action": None},
            {"service": "fcm", "alert": {"body": "hi", "title": "a", "tag": "a", "badge": 1}},
        ),
        ("v2", v3(topic=None, alert={**ALERT, "click_action": None}), v3()),
        (
            "v3",
            {"service": "apns", "alert": None, "data": {"k": "v"}},
            {"service": "apns", "data": {"k": "v"}},
        ),
        ("v3", v3(data=None, tags=None, priority=None), v3()),
    ],
)
def test_optional_nulls_count_as_left_out(version, body, expected):
    """The bodies of MongooseIM 2, which MongoosePush refuses."""
    assert read_request(version, body) == expected


@pytest.mark.parametrize(
    ("version", "body", "expected"),
    [
        ("v3", [], [("/", "Invalid object. Got: array")]),
        ("v3", None, [("/", "null value where object expected")]),
        ("v2", "x", [("/", "Invalid object. Got: string")]),
        ("v1", 5, [("/", "Invalid object. Got: integer")]),
        ("v3", {}, [("/service", "Missing field: service"), ("/alert", "Missing field: alert")]),
        (
            "v1",
            {"badge": 1},
            [
                ("/service", "Missing field: service"),
                ("/body", "Missing field: body"),
                ("/title", "Missing field: title"),
            ],
        ),
        ("v1", {"service": "gcm", "badge": "x", "foo": 1}, [("/foo", "Unexpected field: foo")]),
        ("v1", {**ALERT, "service": "fcm", "sound": "x"}, [("/sound", "Unexpected field: sound")]),
        ("v3", {"service": "apns", **ALERT}, [("/body", "Unexpected field: body")]),
        ("v3", v3(zzz=1, foo=1, service=5), [("/foo", "Unexpected field: foo")]),
        ("v3", v3(alert={"title": "t", "badge": "x"}), [("/alert/body", "Missing field: body")]),
        ("v3", v3(alert={"title": 1, "x": 2}), [("/alert/x", "Unexpected field: x")]),
        ("v3", v3(service=None), [("/service", "null value where string expected")]),
        (
            "v3",
            v3(alert={"title": None, "body": "b"}),
            [("/alert/title", "null value where string expected")],
        ),
        ("v3", v3(service="FCM"), [("/service", "Invalid value for enum")]),
        ("v3", v3(mode=1), [("/mode", "Invalid string. Got: integer")]),
        ("v3", v3(alert="x"), [("/alert", "Invalid object. Got: string")]),
        ("v3", v3(data=[1]), [("/data", "Invalid object. Got: array")]),
        ("v3", v3(time_to_live=60.0), [("/time_to_live", "Invalid integer. Got: number")]),
        ("v3", v3(time_to_live=True), [("/time_to_live", "Invalid integer. Got: boolean")]),
        ("v3", v3(time_to_live=2**31), [("/time_to_live", "Invalid format. Expected :int32")]),
        ("v3", v3(time_to_live=str(-(2**31) - 1)), [("/time_to_live", "Invalid format. Expected :int32")]),
        ("v3", v3(mutable_content=1), [("/mutable_content", "Invalid boolean. Got: integer")]),
        ("v3", v3(tags=["a", 1]), [("/tags/1", "Invalid string. Got: integer")]),
        (
            "v3",
            v3(priority="urgent", mode="test", alert={**ALERT, "badge": "x"}),
            [
                ("/alert/badge", "Invalid integer. Got: string"),
                ("/mode", "Invalid value for enum"),
                ("/priority", "Invalid value for enum"),
            ],
        ),
    ],
)
def test_what_is_wrong_is_said_in_mongoosepushs_words(version, body, expected):
    """First unexpected fields, then missing ones, then values, from the outside in."""
    assert problems(version, body) == expected


@pytest.mark.parametrize("text", [" 60", "60 ", "60.0", "6e1", "", "x", "٣", "9" * 5000])
def test_strings_that_are_no_number_are_refused(text):
    """Nothing around the digits, no other alphabet, and no work for a number of 5000 digits."""
    assert problems("v3", v3(time_to_live=text)) == [("/time_to_live", "Invalid integer. Got: string")]


@pytest.mark.parametrize("text", ["True", "1", "yes", ""])
def test_strings_that_are_no_boolean_are_refused(text):
    """Only the two words of JSON."""
    assert problems("v3", v3(mutable_content=text)) == [("/mutable_content", "Invalid boolean. Got: string")]


def test_a_long_field_name_is_answered_shortened():
    """What a stranger sends does not come back by the megabyte."""
    ((pointer, message),) = problems("v3", v3(**{"x" * 100_000: 1}))
    assert len(pointer) + len(message) < 300


def test_the_callers_body_is_left_alone():
    """Conversion works on a copy."""
    body = v3(time_to_live="60", alert={**ALERT, "badge": None})
    read_request("v3", body)
    assert body == v3(time_to_live="60", alert={**ALERT, "badge": None})


_ALERTS = st.dictionaries(
    st.sampled_from(["title", "body", "badge", "x"]), st.one_of(st.text(max_size=2), st.integers())
)
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**33), 2**33),
    st.floats(allow_nan=False),
    st.sampled_from(["fcm", "apns", "prod", "dev", "normal", "high", "x", ""]),
    st.lists(st.one_of(st.text(max_size=2), st.integers()), max_size=2),
    st.dictionaries(
        st.sampled_from(["title", "body", "badge", "x"]), st.one_of(st.text(max_size=2), st.integers())
    ),
)
_BODIES = st.dictionaries(st.sampled_from([*schemas.WITH_ALERT["properties"], "foo"]), _VALUES)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.lists(_BODIES.map(lambda body: {**v3(), **body}), min_size=2, max_size=6))
def test_remembered_shapes_decide_like_the_schema(bodies):
    """A check that has seen other requests before says the same as one that remembers none."""

    def verdict(body):
        try:
            _CHECK.check(body)
        except InvalidRequest as error:
            return error.problems
        return None

    remembering = [verdict(body) for body in bodies]
    for body, expected in zip(bodies, remembering, strict=True):
        _CHECK._accepted.clear()
        assert verdict(body) == expected


_CHECK = Check(schemas.WITH_ALERT)


def test_shapes_forget_texts_and_numbers():
    """Usual requests share one shape, whatever they say."""
    first = v3(alert={**ALERT, "badge": 1}, data={"a": 1}, priority="high")
    second = v3(alert={"title": "x", "body": "y", "badge": 2}, data={}, priority="high")
    assert shape_of(first) == shape_of(second)
    assert shape_of(v3(priority="high")) != shape_of(v3(priority="low"))
    assert shape_of(v3(mutable_content=True)) != shape_of(v3(mutable_content=1))


def test_what_is_remembered_is_bounded():
    """A stranger who sends ever new shapes fills no memory."""
    check = Check(schemas.WITH_ALERT)
    check._capacity = 4
    for fields in ({"topic": ""}, {"tags": []}, {"mode": "dev"}, {"data": {}}, {"time_to_live": 1}):
        check.check(v3(**fields))
    assert len(check._accepted) <= 4


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"tags": [1] * 100_000}, ("/tags", "Array length is larger than maxItems: 100")),
        ({"tags": ["t"] * 100_000}, ("/tags", "Array length is larger than maxItems: 100")),
        ({"tags": [1] * 100}, ("/tags/0", "Invalid string. Got: integer")),
        ({f"{n:06}": 0 for n in range(100_000)}, ("/000000", "Unexpected field: 000000")),
        ({"mode": ["x"] * 100_000}, ("/mode", "Invalid string. Got: array")),
    ],
)
def test_a_big_wrong_request_is_answered_at_once(fields, problem, monkeypatch):
    """The server does nothing else meanwhile; the number of problems that are looked at is bounded."""
    made = []
    make = schemas.ValidationError
    monkeypatch.setattr(schemas, "ValidationError", lambda text: made.append(text) or make(text))
    request = {"service": "fcm", "alert": {"title": "t", "body": "b"}, **fields}
    with pytest.raises(InvalidRequest) as caught:
        read_request("v3", request)
    first = caught.value.problems[0]
    assert (first.pointer, first.message) == problem
    assert len(made) <= 100


def test_as_many_tags_as_may_be():
    """And one more is too many, also where the shape was accepted."""
    request = {"service": "fcm", "data": {}, "tags": ["t"] * 100}
    assert read_request("v3", request) == request
    with pytest.raises(InvalidRequest):
        read_request("v3", {**request, "tags": ["t"] * 101})
