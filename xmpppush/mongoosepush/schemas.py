"""
The requests of MongoosePush's API, v1 to v3: JSON schemas, and what a wrong request is told.

Whatever version asks, what comes out is the body of v3 with real numbers and booleans, for callers send
``"60"`` and ``"true"`` (MongooseIM hands on what a client registered with).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen
from jsonschema import Draft202012Validator, ValidationError  # type: ignore[import-untyped]
from jsonschema.validators import extend  # type: ignore[import-untyped]

from xmpppush.mongoosepush.payloads import APNS_PUSH_TYPES, MAX_COLLAPSE_ID

Schema = Mapping[str, Any]

YEAR_9999 = 253_402_300_799  # the last second that everybody can write as a date
MAX_LABEL = 255  # characters
MAX_TAGS = 100
MAX_FIELDS = 100  # more than there are names, so one of them is unexpected
MAX_PROBLEMS = 100  # of one request; the answer names no more
ANALYTICS_LABEL = "^[a-zA-Z0-9_.~%-]{1,50}$"  # as FCM documents it

_STRING = {"type": "string"}
_INT32 = {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1}
_SERVICE = {"type": "string", "enum": ["apns", "fcm", "webpush"]}
_MODE = {"type": "string", "enum": ["prod", "dev"]}
_DATA = {"type": "object"}

ALERT: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["body", "title"],
    "properties": {
        "title": _STRING,
        "body": _STRING,
        "badge": _INT32,
        "click_action": _STRING,
        "tag": _STRING,
        "sound": _STRING,
    },
}

V1: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["service", "body", "title"],
    "properties": {
        "service": _SERVICE,
        "title": _STRING,
        "body": _STRING,
        "badge": _INT32,
        "click_action": _STRING,
        "tag": _STRING,
        "topic": _STRING,
        "data": _DATA,
        "mode": _MODE,
    },
}

# Ours, not MongoosePush's. What a provider has no use for it does not get.
EXTENSIONS: Schema = {
    "apns_collapse_id": {"type": "string", "minLength": 1, "maxLength": MAX_COLLAPSE_ID},
    "apns_expiration": {"type": "integer", "format": "int64", "minimum": 0, "maximum": YEAR_9999},
    "apns_push_type": {"type": "string", "enum": list(APNS_PUSH_TYPES)},
    "thread_id": {"type": "string", "minLength": 1, "maxLength": MAX_LABEL},
    "collapse_key": {"type": "string", "minLength": 1, "maxLength": MAX_LABEL},
    "analytics_label": {"type": "string", "pattern": ANALYTICS_LABEL},
    "channel_id": {"type": "string", "minLength": 1, "maxLength": MAX_LABEL},
}

_PROPERTIES = {
    "service": _SERVICE,
    "alert": ALERT,
    "data": _DATA,
    "mode": _MODE,
    "priority": {"type": "string", "enum": ["normal", "high"]},
    "time_to_live": _INT32,
    "mutable_content": {"type": "boolean"},
    "topic": _STRING,
    "tags": {"type": "array", "maxItems": MAX_TAGS, "items": _STRING},
    **EXTENSIONS,
}

# The same for v2 and v3: an alert, or data, or both.
WITH_ALERT: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["service", "alert"],
    "properties": _PROPERTIES,
}
SILENT: Schema = {**WITH_ALERT, "required": ["service", "data"]}

VERSIONS = ("v1", "v2", "v3")

_V1_ALERT_FIELDS = ("title", "body", "badge", "click_action", "tag")


@frozen
class Problem:
    """One thing that is wrong with a request, as MongoosePush words it."""

    message: str
    pointer: str

    def as_json(self) -> dict[str, object]:
        return {"message": self.message, "source": {"pointer": self.pointer}, "title": "Invalid value"}


class InvalidRequest(Exception):
    """
    The request is not what its version's schema asks for: status 422.

    Attributes:
        problems: Never empty, in MongoosePush's order.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{each.pointer}: {each.message}" for each in problems))
        self.problems = tuple(problems)


def read_request(version: str, body: object) -> dict[str, Any]:
    """
    The request that a JSON body makes, in the terms of v3, whatever its version.

    A null in an optional field is as good as leaving it out (MongoosePush refuses it, and with it what
    MongooseIM 2 sends).

    Raises:
        InvalidRequest: It does not follow the schema.
    """
    if not isinstance(body, dict):
        raise InvalidRequest([Problem(_wrong_type("object", body), "/")])
    if version == "v1":
        request = _prepared_v1(body)
        _CHECK_V1.check(request)
        return _from_v1(request)
    request = _prepared(body)
    if isinstance(request.get("alert"), dict):
        request["alert"] = _prepared_alert(request["alert"])
    (_CHECK_SILENT if "data" in request and "alert" not in request else _CHECK_ALERT).check(request)
    return request


def _from_v1(request: dict[str, Any]) -> dict[str, Any]:
    alert = {name: request.pop(name) for name in _V1_ALERT_FIELDS if name in request}
    request["alert"] = alert
    return request


_NUMBER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_BOOLEANS = {"true": True, "false": False}


class _Preparation:
    """Of a schema's objects: makes a copy without optional nulls, strings that stand for others converted."""

    def __init__(self, schema: Schema) -> None:
        self._nullable = frozenset(schema["properties"]) - frozenset(schema["required"]) | {"alert"}
        self._kinds = {
            name: rule["type"]
            for name, rule in schema["properties"].items()
            if rule["type"] in ("integer", "boolean")
        }

    def __call__(self, body: Mapping[str, Any]) -> dict[str, Any]:
        prepared = dict(body)
        if len(body) > MAX_FIELDS:
            return prepared
        kinds = self._kinds
        for name in kinds.keys() & prepared.keys():
            value = prepared[name]
            if type(value) is str:
                if kinds[name] == "boolean":
                    prepared[name] = _BOOLEANS.get(value, value)
                elif _NUMBER.fullmatch(value):
                    prepared[name] = int(value)
        if None in prepared.values():
            for name, value in body.items():
                if value is None and name in self._nullable:
                    del prepared[name]
        return prepared


_prepared_v1, _prepared, _prepared_alert = map(_Preparation, (V1, WITH_ALERT, ALERT))


def _is_integer(_checker: object, value: object) -> bool:
    """60.0 is no integer here, though JSON Schema says so."""
    return isinstance(value, int) and not isinstance(value, bool)


def _pattern(_validator: object, pattern: str, value: object, _schema: Schema) -> Iterator[ValidationError]:
    """Python's ``$`` also matches before a line break at the end, that of JSON Schema does not."""
    if isinstance(value, str) and not re.fullmatch(pattern, value):
        yield ValidationError("does not match")


# jsonschema's own put all of a wrong value into a message that nobody reads: seconds for some megabytes.


def _type(validator: Any, kind: str, value: object, _schema: Schema) -> Iterator[ValidationError]:
    if not validator.is_type(value, kind):
        yield ValidationError("another type")


def _enum(
    _validator: object, words: Sequence[str], value: object, _schema: Schema
) -> Iterator[ValidationError]:
    if value not in words:
        yield ValidationError("another word")


def _max_items(_validator: object, most: int, value: object, _schema: Schema) -> Iterator[ValidationError]:
    if isinstance(value, list) and len(value) > most:
        yield ValidationError("too many")


def _no_others(_validator: object, _no: bool, value: object, schema: Schema) -> Iterator[ValidationError]:
    if isinstance(value, dict) and not value.keys() <= schema["properties"].keys():
        yield ValidationError("unexpected field")


_Validator = extend(
    Draft202012Validator,
    {
        "additionalProperties": _no_others,
        "enum": _enum,
        "maxItems": _max_items,
        "pattern": _pattern,
        "type": _type,
    },
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)


class Check:
    """
    A schema that remembers the shapes of what it accepted.

    jsonschema needs 110 microseconds for a usual request, half of what the whole request may cost. Whether
    one is valid depends on its keys, its types and a few words and ranges only (`shape_of`), and a bridge
    sends the same few shapes for ever.
    """

    _capacity = 1024

    def __init__(self, schema: Schema) -> None:
        self._validator = _Validator(schema)
        self._accepted: set[object] = set()

    def check(self, request: dict[str, Any]) -> None:
        """Raises `InvalidRequest` where the request does not follow the schema."""
        shape = shape_of(request)
        if shape in self._accepted:
            return
        errors = self._errors(request)
        if errors:
            raise InvalidRequest(_explain(errors, ()))
        if len(self._accepted) >= self._capacity:
            self._accepted.clear()
        self._accepted.add(shape)

    def _errors(self, request: dict[str, Any]) -> list[ValidationError]:
        """A body of megabytes has room for millions of them, and each costs 100 microseconds to find."""
        errors: list[ValidationError] = []
        for error in self._validator.iter_errors(request):
            errors.append(error)
            if error.validator == "maxItems" or len(errors) >= MAX_PROBLEMS:
                break
        return errors


# The fields whose words the schemas restrict.
_WORDS = ("service", "mode", "priority", "apns_push_type")
# Those whose strings they measure: what of one its validity depends on.
_MEASURES: Mapping[str, Callable[[str], object]] = {
    "apns_collapse_id": lambda text: 0 < len(text) <= MAX_COLLAPSE_ID,
    "thread_id": lambda text: 0 < len(text) <= MAX_LABEL,
    "collapse_key": lambda text: 0 < len(text) <= MAX_LABEL,
    "channel_id": lambda text: 0 < len(text) <= MAX_LABEL,
    "analytics_label": lambda text: re.fullmatch(ANALYTICS_LABEL, text) is not None,
}


_ALERT_FIELDS = frozenset(ALERT["properties"])


def shape_of(value: Mapping[str, Any]) -> object:
    """
    What of a request its validity depends on: equal shapes are equally valid.

    Small for every request that is valid, so what is remembered stays small. One with too many fields is not.
    """
    if len(value) > MAX_FIELDS:
        return None
    kinds = [*map(type, value.values())]
    shape: list[object] = [*value, *kinds]
    # Most fields are texts, of which nothing more matters. An alert has no other.
    if "service" in value or not _ALERT_FIELDS.issuperset(value):
        for name in _WORDS:
            word = value.get(name)
            shape.append(word if type(word) is str else None)
        measured = _MEASURES.keys() & value.keys()
        shape += [(name, _MEASURES[name](value[name])) for name in measured if type(value[name]) is str]
    if kinds.count(str) < len(kinds):
        for name, each in value.items():
            if type(each) is not str:
                shape.append(_shape_of_field(name, each))
    return tuple(shape)


def _shape_of_field(name: str, value: object) -> object:
    kind = type(value)
    if kind is int:
        if name == "apns_expiration":
            return (int, 0 <= value <= YEAR_9999)  # type: ignore[operator]
        return (int, -(2**31) <= value < 2**31)  # type: ignore[operator]
    if kind is dict and name == "alert":
        return (dict, shape_of(value))  # type: ignore[arg-type]
    if kind is list:
        fits = len(value) <= MAX_TAGS  # type: ignore[arg-type]
        return (list, fits, frozenset(map(type, value)))  # type: ignore[call-overload]
    return kind


def _explain(errors: Sequence[ValidationError], path: tuple[str | int, ...]) -> list[Problem]:
    """
    MongoosePush's list: per object, from the outside in, the first unexpected field; or else all that are
    missing; or else what is wrong with the values, by name.
    """
    here = [error for error in errors if tuple(error.absolute_path) == path]
    for error in here:
        if error.validator == "additionalProperties":
            name = min(name for name in error.instance if name not in error.schema["properties"])
            return [Problem(f"Unexpected field: {_shortened(name)}", _pointer((*path, name)))]
    for error in here:
        if error.validator == "required":
            missing = [name for name in error.validator_value if name not in error.instance]
            return [Problem(f"Missing field: {name}", _pointer((*path, name))) for name in missing]
    if here:
        return [Problem(_wrong_value(here), _pointer(path))]
    children = sorted({error.absolute_path[len(path)] for error in errors}, key=_as_sorted)
    return [
        problem
        for child in children
        for problem in _explain([e for e in errors if e.absolute_path[len(path)] == child], (*path, child))
    ]


def _wrong_value(errors: Sequence[ValidationError]) -> str:
    kinds = {error.validator: error for error in errors}
    if "type" in kinds:
        return _wrong_type(kinds["type"].validator_value, kinds["type"].instance)
    if "enum" in kinds:
        return "Invalid value for enum"
    if "maxItems" in kinds:
        return f"Array length is larger than maxItems: {kinds['maxItems'].validator_value}"
    if "pattern" in kinds:
        return f"Invalid format. Expected {kinds['pattern'].validator_value}"
    if "maxLength" in kinds:
        return f"String length is larger than maxLength: {kinds['maxLength'].validator_value}"
    if "minLength" in kinds:
        return f"String length is smaller than minLength: {kinds['minLength'].validator_value}"
    return f"Invalid format. Expected :{errors[0].schema['format']}"


def _wrong_type(expected: str, value: object) -> str:
    if value is None:
        return f"null value where {expected} expected"
    return f"Invalid {expected}. Got: {_TYPE_NAMES[type(value)]}"


_TYPE_NAMES: Mapping[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


def _pointer(path: Sequence[str | int]) -> str:
    return "/" + "/".join(_shortened(str(part)) for part in path)


def _shortened(name: str) -> str:
    """A field name from outside comes back in the answer, but not by the megabyte."""
    return name if len(name) <= 100 else name[:100] + "..."


def _as_sorted(part: str | int) -> tuple[bool, int, str]:
    return (isinstance(part, str), part if isinstance(part, int) else 0, str(part))


_CHECK_V1 = Check(V1)
_CHECK_ALERT = Check(WITH_ALERT)
_CHECK_SILENT = Check(SILENT)
