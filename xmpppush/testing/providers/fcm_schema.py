"""
What FCM HTTP v1 takes as a message, and how Google words that it does not.

Google's JSON is protocol buffers': names in ``snake_case`` or ``camelCase``, ``null`` for a field that is not
set, 64-bit numbers as texts, too.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

Problem = tuple[str, str]  # field and description
Check = Callable[[Any, str], "list[Problem]"]

MAX_PAYLOAD = 4096
MAX_TTL = 2_419_200  # four weeks
_CAMEL = re.compile(r"(?<=[a-z0-9])([A-Z])")
_DURATION = re.compile(r"\d{1,12}(\.\d{1,9})?s").fullmatch
_NEGATIVE = re.compile(r"-\d{1,12}(\.\d{1,9})?s").fullmatch
_LABEL = re.compile(r"[a-zA-Z0-9\-_.~%]{1,50}").fullmatch
_TOKEN = re.compile(r"[A-Za-z0-9_:.\-]{1,4096}").fullmatch
_RESERVED = re.compile(r"from$|message_type$|google\.|gcm\.|google$|gcm$").match


def text(value: Any, path: str) -> list[Problem]:
    return [] if isinstance(value, str) else [_invalid(path, "TYPE_STRING", value)]


def boolean(value: Any, path: str) -> list[Problem]:
    return [] if isinstance(value, bool) else [_invalid(path, "TYPE_BOOL", value)]


def integer(value: Any, path: str) -> list[Problem]:
    number = value
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,10}", value):
        number = int(value)
    good = isinstance(number, int | float) and not isinstance(number, bool) and number == int(number)
    return [] if good and -(2**31) <= number < 2**31 else [_invalid(path, "TYPE_INT32", value)]


def number(value: Any, path: str) -> list[Problem]:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return [] if good else [_invalid(path, "TYPE_FLOAT", value)]


def anything(value: Any, path: str) -> list[Problem]:
    return (
        []
        if isinstance(value, dict)
        else [_invalid(path, "type.googleapis.com/google.protobuf.Struct", value)]
    )


def duration(value: Any, path: str) -> list[Problem]:
    if isinstance(value, str):
        if _DURATION(value):
            return []
        if _NEGATIVE(value):
            return [(path, "Invalid ttl: must be non-negative")]
        return [(path, f"Illegal duration format; duration must end with 's', {_quoted(value)}")]
    return [_invalid(path, "type.googleapis.com/google.protobuf.Duration", value)]


def texts(value: Any, path: str) -> list[Problem]:
    """A map of text to text."""
    if not isinstance(value, dict):
        return [_invalid(path, "Map", value)]
    return [
        _invalid(f"{path}[{index}].value", "TYPE_STRING", each)
        for index, each in enumerate(value.values())
        if not isinstance(each, str)
    ]


def many(check: Check) -> Check:
    def check_many(value: Any, path: str) -> list[Problem]:
        if not isinstance(value, list):
            return check(value, path)  # one element may stand for a list of one
        return [problem for index, each in enumerate(value) for problem in check(each, f"{path}[{index}]")]

    return check_many


def one_of(name: str, *words: str) -> Check:
    def check(value: Any, path: str) -> list[Problem]:
        if isinstance(value, str) and value in words:
            return []
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(words):
            return []
        return [_invalid(path, f"type.googleapis.com/google.firebase.fcm.v1.{name}", value)]

    return check


def record(kind: str, /, **members: Check) -> Check:
    def check(value: Any, path: str) -> list[Problem]:
        if not isinstance(value, dict):
            return [_invalid(path, f"type.googleapis.com/google.firebase.fcm.v1.{kind}", value)]
        problems: list[Problem] = []
        for key, each in value.items():
            snake = _snake(key)
            below = f"{path}.{snake}" if path else snake
            if snake not in members:
                at = f" at '{path}'" if path else ""
                description = f'Invalid JSON payload received. Unknown name "{key}"{at}: Cannot find field.'
                problems.append((path, description))
            elif each is not None:
                problems += members[snake](each, below)
        return problems

    return check


_PRIORITY = one_of("AndroidMessagePriority", "NORMAL", "HIGH")
_LABELLED = {"analytics_label": text}
_ANDROID_NOTIFICATION = record(
    "AndroidNotification",
    title=text,
    body=text,
    icon=text,
    color=text,
    sound=text,
    tag=text,
    click_action=text,
    body_loc_key=text,
    body_loc_args=many(text),
    title_loc_key=text,
    title_loc_args=many(text),
    channel_id=text,
    ticker=text,
    sticky=boolean,
    event_time=text,
    local_only=boolean,
    notification_priority=one_of(
        "AndroidNotification.NotificationPriority",
        "PRIORITY_UNSPECIFIED",
        "PRIORITY_MIN",
        "PRIORITY_LOW",
        "PRIORITY_DEFAULT",
        "PRIORITY_HIGH",
        "PRIORITY_MAX",
    ),
    default_sound=boolean,
    default_vibrate_timings=boolean,
    default_light_settings=boolean,
    vibrate_timings=many(duration),
    visibility=one_of(
        "AndroidNotification.Visibility", "VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET"
    ),
    notification_count=integer,
    light_settings=anything,
    image=text,
    bypass_proxy_notification=boolean,
    proxy=one_of("AndroidNotification.Proxy", "PROXY_UNSPECIFIED", "ALLOW", "DENY", "IF_PRIORITY_LOWERED"),
)
_ANDROID = record(
    "AndroidConfig",
    collapse_key=text,
    priority=_PRIORITY,
    ttl=duration,
    restricted_package_name=text,
    data=texts,
    notification=_ANDROID_NOTIFICATION,
    fcm_options=record("AndroidFcmOptions", **_LABELLED),
    direct_boot_ok=boolean,
    bandwidth_constrained_ok=boolean,
    restricted_satellite_ok=boolean,
)
_WEBPUSH = record(
    "WebpushConfig",
    headers=texts,
    data=texts,
    notification=anything,
    fcm_options=record("WebpushFcmOptions", link=text, **_LABELLED),
)
_APNS = record(
    "ApnsConfig",
    headers=texts,
    payload=anything,
    live_activity_token=text,
    fcm_options=record("ApnsFcmOptions", image=text, **_LABELLED),
)
_MESSAGE = record(
    "Message",
    name=text,
    data=texts,
    notification=record("Notification", title=text, body=text, image=text),
    android=_ANDROID,
    webpush=_WEBPUSH,
    apns=_APNS,
    fcm_options=record("FcmOptions", **_LABELLED),
    token=text,
    topic=text,
    condition=text,
)
REQUEST = record("SendMessageRequest", message=_MESSAGE, validate_only=boolean)


def malformed(content: Any) -> list[Problem]:
    """What Google's reader of JSON would not take, whatever API it is for."""
    if not isinstance(content, dict):
        return [("", 'Invalid JSON payload received. Unknown name "": Root element must be a message.')]
    return REQUEST(content, "")


def refused(content: Mapping[str, Any]) -> list[Problem]:
    """What FCM itself would not take of a request that is well-formed; the first thing found."""
    message = plain(content).get("message")
    if not message:
        return [("message", "Message is required.")]
    targets = [name for name in ("token", "topic", "condition") if message.get(name)]
    if len(targets) != 1:
        return [("message", "Exactly one of token, topic or condition is required")]
    if targets == ["token"] and not _TOKEN(message["token"]):
        return [("message.token", "The registration token is not a valid FCM registration token")]
    android = message.get("android") or {}
    for path, data in (("message.data", message.get("data")), ("message.android.data", android.get("data"))):
        for key in data or ():
            if _RESERVED(key):
                return [(path, f"Invalid data payload key: {key}")]
    ttl = android.get("ttl")
    if ttl and float(ttl[:-1]) > MAX_TTL:
        return [("message.android.ttl", f"Invalid ttl: must be at most {MAX_TTL}s")]
    for path, options in (("message", message), ("message.android", android)):
        label = (options.get("fcm_options") or {}).get("analytics_label")
        if label and not _LABEL(label):
            return [(f"{path}.fcm_options.analytics_label", "Invalid analytics label")]
    if _size(message, android) > MAX_PAYLOAD:
        return [("message", "Android message is too big")]
    return []


def _size(message: Mapping[str, Any], android: Mapping[str, Any]) -> int:
    """Keys and values of data and notification, in bytes."""
    size = 0
    for part in (message, android):
        for name in ("data", "notification"):
            for key, value in (part.get(name) or {}).items():
                size += len(key.encode()) + (len(value.encode()) if isinstance(value, str) else 0)
    return size


def plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """Names in ``snake_case`` and no nulls; the keys of ``data`` and Apple's payload as they are."""
    result: dict[str, Any] = {}
    for key, value in content.items():
        name = _snake(key)
        if value is None:
            continue
        own = name in ("data", "headers", "payload")
        result[name] = plain(value) if isinstance(value, dict) and not own else value
    return result


def _snake(name: str) -> str:
    if name.islower():
        return name
    return _CAMEL.sub(lambda found: f"_{found[1].lower()}", name)


def _invalid(path: str, kind: str, value: Any) -> Problem:
    return path, f"Invalid value at '{path}' ({kind}), {_quoted(value)}"


def _quoted(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool):
        return str(value).lower()
    return "{...}" if isinstance(value, dict | list) else str(value)
