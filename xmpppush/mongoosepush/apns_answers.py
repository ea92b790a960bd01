"""What APNs' answers mean: one table, pure."""

from collections.abc import Mapping

import orjson
from attrs import frozen

from xmpppush.errors import DeliveryError, DeviceUnregistered, Refused, TryLater

OTHER = "another answer"


@frozen
class Meaning:
    """
    What one of Apple's words means for the caller and for the operator.

    Attributes:
        word: Of `xmpppush.mongoosepush.api.STATUS`.
        hint: What to look at, for the log.
        credentials: Does it say that the pool's certificate or key is not taken?
    """

    word: str
    hint: str = ""
    credentials: bool = False


_KEY_HINT = "check key_id, team_id and p8_file against Apple's developer account"
_ENVIRONMENT_HINT = "they are for Apple's other environment: check mode"

MEANINGS: Mapping[str, Meaning] = {
    "BadCollapseId": Meaning("invalid_request"),
    "BadDeviceToken": Meaning("invalid_request", "a device of Apple's other environment? check mode"),
    "DeviceTokenNotForTopic": Meaning("invalid_request", "another application's device: check the topic"),
    "Forbidden": Meaning("invalid_request"),
    "IdleTimeout": Meaning("invalid_request"),
    "InvalidPushType": Meaning("invalid_request"),
    "PayloadEmpty": Meaning("invalid_request"),
    "TopicDisallowed": Meaning("invalid_request", "the credentials are not for this topic"),
    "Unregistered": Meaning("unregistered"),
    "ExpiredToken": Meaning("unregistered"),
    "PayloadTooLarge": Meaning("payload_too_large"),
    "TooManyRequests": Meaning("too_many_requests", "too many notifications for one device"),
    "TooManyProviderTokenUpdates": Meaning("too_many_requests", "does something else use the same key?"),
    "InternalServerError": Meaning("service_internal"),
    "ServiceUnavailable": Meaning("service_internal"),
    "Shutdown": Meaning("service_internal"),
    "ExpiredProviderToken": Meaning("service_internal", "check this machine's clock", credentials=True),
    "MissingProviderToken": Meaning("service_internal", _KEY_HINT, credentials=True),
    "BadCertificate": Meaning("service_internal", "check certfile", credentials=True),
    "BadCertificateEnvironment": Meaning("service_internal", _ENVIRONMENT_HINT, credentials=True),
    "InvalidProviderToken": Meaning("internal_config", _KEY_HINT, credentials=True),
    "UnrelatedKeyIdInToken": Meaning("internal_config", _KEY_HINT, credentials=True),
    "BadEnvironmentKeyIdInToken": Meaning("internal_config", _ENVIRONMENT_HINT, credentials=True),
    "BadExpirationDate": Meaning("internal_config"),
    "BadMessageId": Meaning("internal_config"),
    "BadPath": Meaning("internal_config"),
    "BadPriority": Meaning("internal_config"),
    "BadTopic": Meaning("internal_config", "check the topic, and default_topic"),
    "DuplicateHeaders": Meaning("internal_config"),
    "MethodNotAllowed": Meaning("internal_config"),
    "MissingDeviceToken": Meaning("internal_config"),
    "MissingTopic": Meaning("internal_config", "set default_topic"),
}
_CLASSES: Mapping[str, type[DeliveryError]] = {
    "invalid_request": Refused,
    "payload_too_large": Refused,
    "unregistered": DeviceUnregistered,
}


def read_reason(body: bytes) -> str:
    """Apple's word: one of `MEANINGS`, `OTHER` for one that is new to us, ``""`` where there is none."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    reason = said.get("reason") if isinstance(said, dict) else None
    if not isinstance(reason, str) or not reason:
        return ""
    return reason if reason in MEANINGS else OTHER


def error_of(status: int, reason: str, after: float | None = None) -> DeliveryError:
    """
    The error that an answer other than 200 stands for.

    The word decides, as in MongoosePush. Where it is new or missing the status does, but no device is given
    up for it: something between us and Apple may have answered.
    """
    meaning = MEANINGS.get(reason)
    word = meaning.word if meaning is not None else _word_of_status(status, reason)
    kind = _CLASSES.get(word)
    error: DeliveryError = TryLater(word, after) if kind is None else kind(word)
    if meaning is not None:
        error.provider_word = reason
    return error


def _word_of_status(status: int, reason: str) -> str:
    if status == 413:
        return "payload_too_large"
    if status == 429:
        return "too_many_requests"
    return "invalid_request" if reason and 400 <= status < 500 else "service_internal"
