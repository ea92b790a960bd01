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
    "tags": {"type": "array", "items": _STRING},
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
        request = _prepared(body, V1)
        _CHECK_V1.check(request)
        return _from_v1(request)
    request = _prepared(body, WITH_ALERT)
    if isinstance(request.get("alert"), dict):
        request["alert"] = _prepared(request["alert"], ALERT)
    (_CHECK_SILENT if "data" in request and "alert" not in request else _CHECK_ALERT).check(request)
    return request


def _from_v1(request: dict[str, Any]) -> dict[str, Any]:
    alert = {name: request.pop(name) for name in _V1_ALERT_FIELDS if name in request}
    request["alert"] = alert
    return request


_NUMBER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_BOOLEANS = {"true": True, "false": False}


def _prepared(body: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """A copy without optional nulls, with the strings that stand for numbers and booleans converted."""
    properties, required = schema["properties"], schema["required"]
    prepared = {}
    for name, value in body.items():
        rule = properties.get(name)
        if rule is not None:
            if value is None and (name not in required or name == "alert"):
                continue
            if type(value) is str:
                if rule["type"] == "integer" and _NUMBER.fullmatch(value):
                    value = int(value)
                elif rule["type"] == "boolean":
                    value = _BOOLEANS.get(value, value)
        prepared[name] = value
    return prepared


def _is_integer(_checker: object, value: object) -> bool:
    """60.0 is no integer here, though JSON Schema says so."""
    return isinstance(value, int) and not isinstance(value, bool)


def _pattern(_validator: object, pattern: str, value: object, _schema: Schema) -> Iterator[ValidationError]:
    """Python's ``$`` also matches before a line break at the end, that of JSON Schema does not."""
    if isinstance(value, str) and not re.fullmatch(pattern, value):
        yield ValidationError("does not match")


_Validator = extend(
    Draft202012Validator,
    {"pattern": _pattern},
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
        errors = list(self._validator.iter_errors(request))
        if errors:
            raise InvalidRequest(_explain(errors, ()))
        if len(self._accepted) >= self._capacity:
            self._accepted.clear()
        self._accepted.add(shape)


# The fields whose words the schemas restrict.
_WORDS = frozenset({"service", "mode", "priority", "apns_push_type"})
# Those whose strings they measure: what of one its validity depends on.
_MEASURES: Mapping[str, Callable[[str], object]] = {
    "apns_collapse_id": lambda text: 0 < len(text) <= MAX_COLLAPSE_ID,
    "thread_id": lambda text: 0 < len(text) <= MAX_LABEL,
    "collapse_key": lambda text: 0 < len(text) <= MAX_LABEL,
    "channel_id": lambda text: 0 < len(text) <= MAX_LABEL,
    "analytics_label": lambda text: re.fullmatch(ANALYTICS_LABEL, text) is not None,
}


def shape_of(value: Mapping[str, Any]) -> object:
    """
    What of a request its validity depends on: equal shapes are equally valid.

    Small for every request that is valid, so what is remembered stays small.
    """
    return tuple([(name, _shape_of_field(name, each)) for name, each in value.items()])


def _shape_of_field(name: str, value: object) -> object:
    kind = type(value)
    if kind is str:
        if name in _WORDS:
            return value
        measure = _MEASURES.get(name)
        return str if measure is None else (str, measure(value))  # type: ignore[arg-type]
    if kind is int:
        if name == "apns_expiration":
            return (int, 0 <= value <= YEAR_9999)  # type: ignore[operator]
        return (int, -(2**31) <= value < 2**31)  # type: ignore[operator]
    if kind is dict and name == "alert":
        return (dict, shape_of(value))  # type: ignore[arg-type]
    if kind is list:
        return (list, frozenset(map(type, value)))  # type: ignore[call-overload]
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
