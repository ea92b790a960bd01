"""
What FCM and APNs get for a notification: pure, for the sandbox and for the real providers.

The requests are those of v3 without ``service``, validated.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from decimal import Decimal
from hashlib import sha256
from typing import Any

from xmpppush.errors import Refused

Request = Mapping[str, Any]

# A push service keeps a push for so long unless told otherwise: as long as our own queue does.
WEBPUSH_TTL = 86_400
_WEBPUSH_TOPIC = re.compile(r"[A-Za-z0-9_-]{1,32}")

# Apple's names, as of 2026; what is in none of these would be answered InvalidPushType.
APNS_PUSH_TYPES = (
    "alert",
    "background",
    "complication",
    "controls",
    "fileprovider",
    "liveactivity",
    "location",
    "mdm",
    "pushtotalk",
    "voip",
    "widgets",
)
MAX_COLLAPSE_ID = 64  # bytes
MAX_TOPIC = 255
MAX_DEPTH = 100  # of lists in a value of FCM's data
_APNS_PRIORITIES = {"normal": b"5", "high": b"10"}
_PUSH_TYPES = {name: (b"apns-push-type", name.encode()) for name in APNS_PUSH_TYPES}
_BACKGROUND = _PUSH_TYPES["background"]
_PRIORITY = {each: (b"apns-priority", each) for each in (b"5", b"10")}
# Visible, so that no header can end early; a topic is a bundle id and more, all of it ASCII.
_TOPIC = re.compile(r"[!-~]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def apns_fields(
    request: Request, default_topic: str = "", now: Callable[[], float] | None = None
) -> list[tuple[bytes, bytes]]:
    """
    The request headers of APNs that depend on the notification.

    ``apns-push-type`` is always there: Apple wants it for background notifications since iOS 13, and for
    alerts on watchOS. A background notification has priority 5 whatever the request says, for Apple refuses
    others.

    Args:
        now: Tells seconds since the epoch; ``None``: ``time_to_live`` is left out.

    Raises:
        Refused: A value cannot be sent, or Apple would not take it.
    """
    topic = request.get("topic", default_topic or None)
    kind = push_type(request, topic or "")
    fields = [kind]
    if topic is not None:
        if not is_topic(topic):
            raise Refused("invalid_request")
        fields.append((b"apns-topic", topic.encode("ascii")))
    if kind is _BACKGROUND:
        fields.append(_PRIORITY[b"5"])
    elif "priority" in request:
        fields.append(_PRIORITY[_APNS_PRIORITIES[request["priority"]]])
    if "apns_collapse_id" in request:
        collapse_id = request["apns_collapse_id"].encode("utf-8", "replace")
        if len(collapse_id) > MAX_COLLAPSE_ID or _CONTROL.search(request["apns_collapse_id"]):
            raise Refused("invalid_request")
        fields.append((b"apns-collapse-id", collapse_id.strip()))
    expiration = _expiration(request, now)
    if expiration is not None:
        fields.append((b"apns-expiration", b"%d" % max(0, expiration)))
    return fields


def is_topic(text: str) -> bool:
    """May this stand in ``apns-topic``?"""
    return len(text) <= MAX_TOPIC and _TOPIC.fullmatch(text) is not None


def _expiration(request: Request, now: Callable[[], float] | None) -> int | None:
    """When Apple gives up, in seconds since the epoch; 0: it tries once."""
    if "apns_expiration" in request:
        return int(request["apns_expiration"])
    if "time_to_live" in request and now is not None:
        seconds = int(request["time_to_live"])
        return int(now()) + seconds if seconds > 0 else 0
    return None


def push_type(request: Request, topic: str) -> tuple[bytes, bytes]:
    """
    The header ``apns-push-type``.

    Raises:
        Refused: The request names one that Apple does not know.
    """
    name = request.get("apns_push_type")
    if name is None:
        name = "voip" if topic.endswith(".voip") else "alert" if "alert" in request else "background"
    try:
        return _PUSH_TYPES[name]
    except KeyError:
        raise Refused("invalid_request") from None


def apns_headers(
    request: Request, default_topic: str = "", now: Callable[[], float] | None = None
) -> dict[str, str]:
    """`apns_fields` as text."""
    return {name.decode(): value.decode() for name, value in apns_fields(request, default_topic, now)}


def apns_payload(request: Request) -> dict[str, Any]:
    """The JSON for APNs; a key ``aps`` in ``data`` gives way to ours."""
    alert = request.get("alert")
    aps: dict[str, Any] = {}
    if alert is None:
        aps["content-available"] = 1
    else:
        aps["alert"] = {"title": alert["title"], "body": alert["body"]}
        for name, ours in (("badge", "badge"), ("click_action", "category"), ("sound", "sound")):
            if name in alert:
                aps[ours] = alert[name]
    if "thread_id" in request:
        aps["thread-id"] = request["thread_id"]
    if request.get("mutable_content"):
        aps["mutable-content"] = 1
    return {**request.get("data", {}), "aps": aps}


def fcm_message(device_id: str, request: Request) -> dict[str, Any]:
    """
    The JSON for FCM's v1 API, ``{"message": {...}}``.

    Raises:
        Refused: ``data`` holds what cannot be made a string.
    """
    alert = request.get("alert", {})
    android: dict[str, Any] = {
        "notification": {
            name: alert[name] for name in ("title", "body", "click_action", "tag", "sound") if name in alert
        }
    }
    if "data" in request:
        android["data"] = {name: fcm_string(value) for name, value in request["data"].items()}
    if "priority" in request:
        android["priority"] = request["priority"].upper()
    if "time_to_live" in request:
        android["ttl"] = f"{request['time_to_live']}s"
    if "collapse_key" in request:
        android["collapse_key"] = request["collapse_key"]
    if "analytics_label" in request:
        android["fcm_options"] = {"analytics_label": request["analytics_label"]}
    if "channel_id" in request and alert:
        android["notification"]["channel_id"] = request["channel_id"]
    return {"message": {"token": device_id, "android": android, "data": {}, "notification": {}}}


def fcm_size(message: Mapping[str, Any]) -> int:
    """
    Octets of what FCM's limit is about: keys and values of the notification and of the data.

    Args:
        message: Of `fcm_message`.
    """
    android = message["message"]["android"]
    parts = (android["notification"], android.get("data", {}))
    return sum(
        len(name.encode()) + len(value.encode("utf-8", "surrogatepass"))
        for part in parts
        for name, value in part.items()
    )


def fcm_string(value: object, depth: int = 0) -> str:
    """
    A value of ``data`` as FCM takes it, a string, made in Erlang's way as MongoosePush does.

    There a list is text: of strings, of lists, and of numbers that are characters.

    Raises:
        Refused: It is an object or a list with one, a number in a list is no character, or lists are nested
            deeper than `MAX_DEPTH`.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float_string(value)
    if isinstance(value, list):
        if depth >= MAX_DEPTH:
            raise Refused("invalid_notification")
        return "".join([_text_in_list(each, depth + 1) for each in value])
    raise Refused("invalid_notification")


def _text_in_list(value: object, depth: int) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | list):
        raise Refused("invalid_notification")
    if isinstance(value, int):
        if not 0 <= value <= 0x10FFFF or 0xD800 <= value <= 0xDFFF:
            raise Refused("invalid_notification")
        return chr(value)
    return fcm_string(value, depth)


def _float_string(value: float) -> str:
    """Erlang's shortest form: decimal or scientific, whichever is shorter, always with a point."""
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    text, point = "".join(map(str, digits)), len(digits) + int(exponent)
    scientific = f"{text[0]}.{text[1:] or '0'}e{point - 1}"
    if point <= 0:
        plain = "0." + "0" * -point + text
    elif point >= len(text):
        plain = text + "0" * (point - len(text)) + ".0"
    else:
        plain = text[:point] + "." + text[point:]
    if not value:
        return "-0.0" if sign else "0.0"
    shorter = scientific if len(scientific) < len(plain) or abs(value) >= 2**53 else plain
    return ("-" if sign else "") + shorter


def webpush_content(request: Request) -> dict[str, Any]:
    """
    The JSON that a Web Push client decrypts.

    ``title``, ``body``, ``badge``, ``click_action``, ``tag`` and ``sound`` of the alert where it has them,
    and ``data`` as it came.
    """
    content = {
        name: request["alert"][name]
        for name in ("title", "body", "badge", "click_action", "tag", "sound")
        if name in request.get("alert", ())
    }
    if "data" in request:
        content["data"] = request["data"]
    return content


def webpush_headers(request: Request) -> list[tuple[str, str]]:
    """
    What the push service reads itself (RFC 8030 section 5): TTL, and Urgency and Topic where they are said.

    A ``collapse_key`` that cannot be a topic goes by its hash.
    """
    headers = [("TTL", str(max(0, request.get("time_to_live", WEBPUSH_TTL))))]
    if "priority" in request:
        headers.append(("Urgency", request["priority"]))
    if "collapse_key" in request:
        topic = request["collapse_key"]
        if not _WEBPUSH_TOPIC.fullmatch(topic):
            topic = urlsafe_b64encode(sha256(topic.encode("utf-8", "replace")).digest()).decode("ascii")[:32]
        headers.append(("Topic", topic))
    return headers
