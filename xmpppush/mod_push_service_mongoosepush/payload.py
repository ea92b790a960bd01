"""
A notification as a MongoosePush request: path and JSON for v1, v2 and v3.

The shapes are what MongooseIM sends, with values of the types that MongoosePush's schema names; it
refuses unknown fields and nulls, so what a registration does not name is left out. Where MongooseIM is
careless we are not: the device id is percent-encoded, and text that a provider would refuse for its
length is shortened.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import orjson
from attrs import field, frozen

from xmpppush.errors import PreconditionNotMet
from xmpppush.model import Delivery, Publish, PushExtras, PushSummary, Route

VERSIONS = ("v1", "v2", "v3")
SERVICES = ("fcm", "apns")
# A summary may come without text (privacy), yet MongoosePush wants a title and a body.
DEFAULT_BODY = "New message"
# APNs and FCM take 4096 bytes for everything: this leaves room for the rest of the request.
MAX_TEXT = 2500
MAX_NAME = 500
MAX_DEVICE_ID = 4000  # of about 4050 on MongoosePush's connection to APNs breaks
INT32 = 2**31 - 1
MAX_REMEMBERED_SIZE = 8192  # characters in all of a registration's options

_UNSAFE = re.compile(r"[^A-Za-z0-9._~\-]")  # RFC 3986 section 2.3
_INTEGER = re.compile(r"[+-]?[0-9]{1,10}")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}  # XML Schema's spellings, as in forms


@frozen
class Target:
    """
    What the publish options say of every notification to a device.

    Attributes:
        service: ``fcm`` or ``apns``.
        path: Of the request.
        options: Fields beside the alert or data.
        alert: Fields in the alert; ``None``: the push is silent and carries data.
        flat: Version 1: an alert without ``alert`` around it.
    """

    service: str
    path: str = field(repr=False)
    options: Mapping[str, Any] = field(repr=False)
    alert: Mapping[str, Any] | None = field(repr=False)
    flat: bool


def target_of(options: Mapping[str, str], api_version: str, services: tuple[str, ...] = SERVICES) -> Target:
    """
    Read the publish options.

    Args:
        api_version: One of `VERSIONS`.
        services: Names that ``service`` may have.

    Raises:
        PreconditionNotMet: An option is missing or has a value that the push service would refuse. The
            text names the option, never its value.
    """
    service = service_of(options, services)
    path = f"/{api_version}/notification/{_encoded(device_id_of(options))}"
    if api_version == "v1":  # no silent pushes, and ``mode`` always
        mode = _mode(options.get("mode") or "prod")
        return Target(service, path, {"mode": mode, **_taken(("click_action", "topic"), options)}, {}, True)
    # Not a field of MongoosePush: whatever is not true is a notification that is seen, as in MongooseIM.
    silent = _BOOLEANS.get(options.get("silent", ""))
    alert = None if silent else _taken(("sound", "click_action"), options)
    beside = _taken(("mode", "priority", "topic", "mutable_content", "time_to_live"), options)
    return Target(service, path, beside, alert, False)


def body_for(target: Target, publish: Publish) -> bytes:
    """The JSON of this notification."""
    content: dict[str, Any] = {"service": target.service}
    if target.alert is None:
        content["data"] = _data(publish)
    elif target.flat:
        content.update(_alert(publish))
    else:
        content["alert"] = {**_alert(publish), **target.alert}
    content.update(target.options)
    if publish.notification.extra.get("priority") == "high" and not target.flat:
        content.setdefault("priority", "high")  # a call; what the registration says counts more
    if publish.notification.extras is not None:
        _add_extras(content, publish.notification.extras, target.flat)
    if publish.route is not None:
        _add_route(content, publish.route, target.flat)
    return orjson.dumps(content)


def request_for(
    publish: Publish, api_version: str, services: tuple[str, ...] = SERVICES
) -> tuple[str, bytes]:
    """Path and JSON of the request; raises what `target_of` raises."""
    target = target_of(publish.options, api_version, services)
    return target.path, body_for(target, publish)


class Targets:
    """
    `target_of`, remembered: a registration's options are the same object from push to push, and so are
    those that a server publishes for a device.

    Args:
        size: How many are remembered at the most.
    """

    def __init__(self, api_version: str, services: tuple[str, ...] = SERVICES, size: int = 100_000) -> None:
        self._api_version = api_version
        self._services = services
        self._size = size
        # By id(), and with the options themselves, which keeps the id theirs.
        self._known: dict[int, tuple[Mapping[str, str], Target]] = {}

    def of(self, options: Mapping[str, str]) -> Target:
        """Raises what `target_of` raises, each time."""
        known = self._known.get(id(options))
        if known is not None:
            return known[1]
        target = target_of(options, self._api_version, self._services)
        if len(self._known) >= self._size:
            self._known.clear()
        # A stranger's may be anything, and of any size.
        if len(options) + sum(map(len, options)) + sum(map(len, options.values())) < MAX_REMEMBERED_SIZE:
            self._known[id(options)] = (options, target)
        return target


def collapse_key(delivery: Delivery) -> object:
    """
    What a notification has in common with those that it may replace: device, node, sender, urgency.

    Read from the JSON, which outlives a restart; only while a device fails does anybody ask.

    Returns:
        ``None`` where it names no sender: such a one replaces nothing.
    """
    try:
        content = orjson.loads(delivery.body)
    except ValueError:
        return None
    if not isinstance(content, dict):
        return None
    silent = "data" in content
    fields = content["data"] if silent else content.get("alert", content)
    sender = fields.get("last-message-sender" if silent else "tag") if isinstance(fields, dict) else None
    if not isinstance(sender, str) or not sender:
        return None
    urgency = str(content.get("priority"))  # a call is no news of a chat
    return delivery.account, delivery.pubsub, delivery.node, delivery.path, silent, sender, urgency


def service_of(options: Mapping[str, str], services: tuple[str, ...] = SERVICES) -> str:
    """The ``service`` option; raises `PreconditionNotMet`."""
    service = options.get("service", "")
    if not service:
        raise PreconditionNotMet("publish option 'service' is missing")
    if service not in services:
        raise PreconditionNotMet(f"publish option 'service' is none of: {', '.join(services)}")
    return service


def device_id_of(options: Mapping[str, str]) -> str:
    """
    The ``device_id`` option or ``device``, as the tutorial calls it; raises `PreconditionNotMet`.
    """
    device_id = options.get("device_id") or options.get("device") or ""
    if not device_id:
        raise PreconditionNotMet("publish option 'device_id' is missing")
    return device_id


def _encoded(device_id: str) -> str:
    # "." and ".." are steps in a path however they are spelled (RFC 3986 section 5.2.4).
    encoded = _UNSAFE.sub(_percent, device_id) if len(device_id) <= MAX_DEVICE_ID else ""
    if not encoded or len(encoded) > MAX_DEVICE_ID or device_id in (".", ".."):
        raise PreconditionNotMet("publish option 'device_id' is no device id")
    return encoded


def _percent(match: re.Match[str]) -> str:
    return quote(match[0], safe="")


def _alert(publish: Publish) -> dict[str, Any]:
    """
    What the phone shows.

    ``tag`` is the sender, so that on Android a sender's next notification replaces the last one. Where
    the summary names no sender, the title is the domain or account that publishes.
    """
    summary = publish.notification.summary
    sender = shortened(summary.last_message_sender or "", MAX_NAME)
    alert: dict[str, Any] = {"title": sender or publish.sender}
    if sender:
        alert["tag"] = sender
    alert["body"] = shortened(summary.last_message_body or "", MAX_TEXT) or DEFAULT_BODY
    alert["badge"] = 1 if summary.message_count is None else _int32(summary.message_count)
    return alert


def _add_extras(content: dict[str, Any], extras: PushExtras, flat: bool) -> None:
    """What only the device can read it has to get whole."""
    if extras.priority and not flat:
        content.setdefault("priority", "high" if extras.priority == "high" else "normal")
    if extras.encrypted is not None:
        encrypted = {"encrypted": extras.encrypted.text, "iv": extras.encrypted.iv}
        if extras.encrypted.voip:
            encrypted["type"] = "voip"
        content["data"] = {**content.get("data", {}), **encrypted}


def _add_route(content: dict[str, Any], route: Route, flat: bool) -> None:
    if route.tags and not flat:
        content["tags"] = list(route.tags)
    if route.data:
        content["data"] = {**content.get("data", {}), **route.data}


def _data(publish: Publish) -> dict[str, Any]:
    """All of the summary, for an app that makes its own notification of it."""
    summary: PushSummary = publish.notification.summary
    data: dict[str, Any] = {}
    if summary.message_count is not None:
        data["message-count"] = _int32(summary.message_count)
    if summary.pending_subscription_count is not None:
        data["pending-subscription-count"] = _int32(summary.pending_subscription_count)
    if summary.last_message_sender is not None:
        data["last-message-sender"] = shortened(summary.last_message_sender, MAX_NAME)
    if summary.last_message_body is not None:
        data["last-message-body"] = shortened(summary.last_message_body, MAX_TEXT)
    for name, value in publish.notification.extra.items():
        data.setdefault(name, value)
    return data


def _taken(names: tuple[str, ...], options: Mapping[str, str]) -> dict[str, Any]:
    # An empty field says nothing: MongoosePush would pass an empty topic on, and APNs refuse it.
    return {name: _TYPES[name](options[name]) for name in names if options.get(name)}


def _mutable(value: str) -> bool:
    try:
        return _BOOLEANS[value]
    except KeyError:
        raise PreconditionNotMet("publish option 'mutable_content' is not true or false") from None


def _time_to_live(value: str) -> int:
    if not _INTEGER.fullmatch(value) or abs(int(value)) > INT32:
        raise PreconditionNotMet("publish option 'time_to_live' is no number of seconds")
    return int(value)


def _mode(value: str) -> str:
    if value not in ("prod", "dev"):
        raise PreconditionNotMet("publish option 'mode' is not prod or dev")
    return value


def _priority(value: str) -> str:
    if value not in ("normal", "high"):
        raise PreconditionNotMet("publish option 'priority' is not normal or high")
    return value


_TYPES: dict[str, Callable[[str], Any]] = {
    "click_action": str,
    "mode": _mode,
    "mutable_content": _mutable,
    "priority": _priority,
    "sound": str,
    "time_to_live": _time_to_live,
    "topic": str,
}


def _int32(number: int) -> int:
    """The nearest number that the schema takes; nobody has fewer than no messages."""
    return min(max(number, 0), INT32)


def shortened(text: str, limit: int) -> str:
    """
    ``text``, or its beginning and an ellipsis where it takes more than ``limit`` bytes as JSON.

    A provider refuses the whole notification otherwise, and the phone would stay silent.
    """
    if len(text) * 4 <= limit or len(orjson.dumps(text)) - 2 <= limit:
        return text
    low, high = 0, limit
    while low < high:  # the longest beginning that fits, by bisection
        middle = (low + high + 1) // 2
        if len(orjson.dumps(text[:middle])) - 2 <= limit - 3:
            low = middle
        else:
            high = middle - 1
    return text[:low] + "…"
