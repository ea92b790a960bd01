"""What an answer of the push service means, as one table."""

import re

import orjson

from xmpppush.errors import DeliveryError, DeviceUnregistered, Refused, TryLater

# What is no 2xx and not here is our mistake or the configuration's, and stays one: Refused.
OUTCOMES: dict[int, type[DeliveryError]] = {
    401: TryLater,  # nothing is wrong with the notification: it waits until somebody has put 'api_key' right
    403: TryLater,
    407: TryLater,
    408: TryLater,
    410: DeviceUnregistered,
    425: TryLater,
    429: TryLater,
}

# MongoosePush's v1 and v2 answer 500 for whatever the provider says, v3 for words that it does not know
# (APNs ExpiredToken, FCM NOT_FOUND); then the word decides. Compared in lower case without underscores:
# 1.x spelled the same ones bad_device_token and so on. A 500 without one of these may pass.
WORDS: dict[str, type[DeliveryError]] = {
    "unregistered": DeviceUnregistered,
    "notregistered": DeviceUnregistered,
    "invalidregistration": DeviceUnregistered,
    "baddevicetoken": DeviceUnregistered,
    "expiredtoken": DeviceUnregistered,
    "notfound": DeviceUnregistered,
    "badcollapseid": Refused,
    "devicetokennotfortopic": Refused,
    "forbidden": Refused,
    "invalidargument": Refused,
    "invalidnotification": Refused,
    "invalidrequest": Refused,  # our own push service's
    "invalidpushtype": Refused,
    "nomatchingpool": Refused,
    "payloadempty": Refused,
    "payloadtoolarge": Refused,
    "topicdisallowed": Refused,
}

# Short words only: a device token never fits, should a push service echo one.
_WORD = re.compile(r"[A-Za-z][A-Za-z_]{0,39}")
_WORD_OF_MESSAGE = re.compile(r"[A-Za-z0-9:.,_/'-]{1,30}")


def outcome_of(code: int, body: bytes = b"", retry_after: float | None = None) -> DeliveryError | None:
    """
    What became of a notification.

    Args:
        body: The answer's, for the provider's word and for what is logged.
        retry_after: Seconds by the answer's Retry-After.

    Returns:
        ``None``: done. The error's text is fit for a log.
    """
    if 200 <= code < 300:
        return None
    word = reason_in(body)
    kind = OUTCOMES.get(code, TryLater if code >= 500 else Refused)
    if code == 500:
        kind = WORDS.get(word.lower().replace("_", ""), kind)
    text = f"{code} {word}".rstrip()
    if 300 <= code < 400:
        # Never followed: a token goes to the server that is configured. Nothing is wrong with the
        # notification, so it waits until somebody has put 'server' right.
        return TryLater(f"{code} redirect", retry_after)
    return TryLater(text, retry_after) if kind is TryLater else kind(text)


def reason_in(body: bytes) -> str:
    """
    The reason that an answer gives: v3's ``reason``, v1's and v2's ``details``, or the first message of
    a 422; ``""`` where there is none fit for a log.
    """
    try:
        content = orjson.loads(body)
    except ValueError:
        return ""
    if not isinstance(content, dict):
        return ""
    for name in ("reason", "details"):
        word = content.get(name)
        if isinstance(word, str) and _WORD.fullmatch(word):
            return word
    errors = content.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        message = errors[0].get("message")
        if isinstance(message, str) and len(message) <= 100:
            return message if all(map(_WORD_OF_MESSAGE.fullmatch, message.split(" "))) else ""
    return ""
