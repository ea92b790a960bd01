"""``GET /swagger.json``: the API as OpenAPI 3.1, made of the schemas that requests are checked with."""

from collections.abc import Mapping
from typing import Any

from xmpppush.mongoosepush.schemas import ALERT, EXTENSIONS, SILENT, V1, WITH_ALERT, Schema

DESCRIPTIONS: Mapping[str, str] = {
    "service": "Which kind of device it is.",
    "alert": "What the phone shows.",
    "data": "Beside an alert, or without one for a silent notification. FCM gets strings, and no objects.",
    "mode": "Chooses the pool.",
    "priority": "APNs: 5 or 10; a silent notification has 5. FCM: NORMAL or HIGH. Web Push: urgency.",
    "time_to_live": "Seconds that the provider keeps it for a device that is not reachable.",
    "mutable_content": "APNs: an extension of the app may change it before it is shown.",
    "topic": "APNs: the app's bundle id; default: the pool's.",
    "tags": "Chooses the pool: it has to have them all.",
    "title": "Its first line.",
    "body": "Its text.",
    "badge": "APNs: the number on the app's icon. FCM gets none.",
    "click_action": "APNs: category. FCM: the intent that a tap starts.",
    "tag": "FCM: a notification replaces the last one of the same tag.",
    "sound": "A sound of the app.",
    "apns_collapse_id": "APNs: replaces the notification with the same id; 64 bytes at the most.",
    "apns_expiration": "APNs: seconds since the epoch until which it is kept; goes before time_to_live.",
    "apns_push_type": "APNs: default is voip for a topic that ends so, else alert or background.",
    "thread_id": "APNs: groups notifications.",
    "collapse_key": "FCM, Web Push: of several that wait for a device the last is kept.",
    "analytics_label": "FCM: label for its statistics.",
    "channel_id": "FCM: Android's notification channel.",
}
_ANSWERS: Mapping[str, tuple[str, str]] = {
    "200": ("The provider took it.", "Done"),
    "400": ("Not JSON; or the provider finds it wrong; or no pool fits.", "Reason"),
    "401": ("The API key is missing or unknown (only where keys are configured).", "Reason"),
    "406": ("The Accept header leaves out JSON.", "Reason"),
    "410": ("v3: the device is gone. Forget it.", "Reason"),
    "413": ("Too large for us, or v3: for the provider.", "Reason"),
    "422": ("Not what the schema asks for.", "Invalid"),
    "429": ("Too many requests: Retry-After says when to come back.", "Reason"),
    "431": ("The request line and headers are too large.", "Reason"),
    "500": ("v1, v2: any error of the provider; v3: it did not answer in time.", "Reason"),
    "503": ("The provider cannot be reached, or does not let us in.", "Reason"),
}


def openapi(version: str) -> dict[str, Any]:
    """The document; ``version`` is ours."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "xmpppush push service",
            "version": version,
            "description": "MongoosePush's API. Numbers and booleans may also come as strings.",
        },
        "paths": {
            **{f"/{each}/notification/{{device_id}}": _notification(each) for each in ("v1", "v2", "v3")},
            "/healthcheck": {"get": _get("health", "How the pools are", "application/json", "Health")},
            "/metrics": {"get": _get("metrics", "Metrics for Prometheus", "text/plain", None)},
        },
        "components": {
            "schemas": {
                "V1": _public(V1),
                "Alert": _public(ALERT),
                "V3": {"anyOf": [_public(WITH_ALERT), _public(SILENT)]},
                "Done": {"type": "null"},
                "Reason": {
                    "type": "object",
                    "additionalProperties": False,
                    "minProperties": 1,
                    "properties": {"reason": {"type": "string"}, "details": {"type": "string"}},
                },
                "Invalid": _INVALID,
                "Health": _HEALTH,
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _notification(version: str) -> dict[str, Any]:
    schema = "V1" if version == "v1" else "V3"
    responses = {status: _response(text, answer) for status, (text, answer) in _ANSWERS.items()}
    responses["429"]["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 0}}}
    return {
        "parameters": [
            {
                "name": "device_id",
                "in": "path",
                "required": True,
                "description": "What the provider knows the device by; 4096 octets at the most.",
                "schema": {"type": "string", "minLength": 1},
            }
        ],
        "post": {
            "operationId": f"notify_{version}",
            "summary": f"Send a notification ({version})",
            "security": [{}, {"key": []}],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
            },
            "responses": responses,
        },
    }


def _get(operation: str, summary: str, media: str, schema: str | None) -> dict[str, Any]:
    content = {"schema": {"$ref": f"#/components/schemas/{schema}"} if schema else {"type": "string"}}
    responses = {
        "200": {"description": "Well, or in part.", "content": {media: content}},
        "401": _response(*_ANSWERS["401"]),
        "406": _response(*_ANSWERS["406"]),
    }
    if operation == "health":
        responses["503"] = {"description": "No pool has a connection.", "content": {media: content}}
    return {
        "operationId": operation,
        "summary": summary,
        "security": [{}, {"key": []}],
        "responses": responses,
    }


def _response(text: str, schema: str) -> dict[str, Any]:
    return {
        "description": text,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


def _public(schema: Schema) -> dict[str, Any]:
    """A schema as it is from outside: with strings for numbers, and nulls where a field may be left out."""
    required = schema["required"]
    properties = {}
    for name, rule in schema["properties"].items():
        shown = _shown(name, rule)
        if name not in required:
            shown = {"anyOf": [shown, {"type": "null"}]}
        text = DESCRIPTIONS[name] + (" An extension of xmpppush." if name in EXTENSIONS else "")
        properties[name] = {**shown, "description": text}
    return {**schema, "properties": properties}


def _shown(name: str, rule: Schema) -> dict[str, Any]:
    if name == "alert":
        return {"$ref": "#/components/schemas/Alert"}
    if rule["type"] == "integer":
        numeral = _NATURAL if rule["minimum"] == 0 else _NUMERAL
        return {"anyOf": [dict(rule), {"type": "string", "pattern": numeral}]}
    if rule["type"] == "boolean":
        return {"anyOf": [dict(rule), {"type": "string", "enum": ["true", "false"]}]}
    return dict(rule)


# More digits are taken where the number is in range, which a pattern cannot say.
_NUMERAL = "^[+-]?[0-9]{1,9}$"
_NATURAL = "^[+]?[0-9]{1,11}$"
_INVALID: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["errors"],
    "properties": {
        "errors": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["message", "source", "title"],
                "properties": {
                    "message": {"type": "string"},
                    "source": {
                        "type": "object",
                        "required": ["pointer"],
                        "properties": {"pointer": {"type": "string", "pattern": "^/"}},
                    },
                    "title": {"type": "string"},
                },
            },
        }
    },
}
_STATUS: Schema = {"type": "string", "enum": ["pass", "warn", "fail"]}
_HEALTH: Schema = {
    "type": "object",
    "required": ["status", "version", "description", "checks"],
    "properties": {
        "status": _STATUS,
        "version": {"type": "string"},
        "description": {"type": "string"},
        "checks": {
            "type": "object",
            "additionalProperties": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["status", "time", "output"],
                    "properties": {
                        "status": _STATUS,
                        "time": {"type": "string", "format": "date-time"},
                        "output": {
                            "type": "object",
                            "properties": {
                                "connected": {"type": "integer"},
                                "disconnected": {"type": "integer"},
                            },
                        },
                    },
                },
            },
        },
    },
}
