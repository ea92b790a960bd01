"""
Google's FCM HTTP v1, with the token endpoint of its service accounts.

Both are on one port: ``POST /v1/projects/PROJECT/messages:send`` and ``POST /token``.
"""

import re
import secrets
import time
from typing import Any
from urllib.parse import parse_qs

import jwt
import orjson
from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from xmpppush.testing.providers.base import CAPACITY, Emulator
from xmpppush.testing.providers.credentials import (
    Authority,
    FCMCredentials,
    make_fcm_credentials,
    make_test_authority,
)
from xmpppush.testing.providers.fcm_schema import malformed, plain, refused
from xmpppush.testing.providers.wire import Reply, Request

SCOPES = (
    "https://www.googleapis.com/auth/firebase.messaging",
    "https://www.googleapis.com/auth/cloud-platform",
)
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SKEW = 300.0  # seconds that clocks may differ
LIFETIME = 3600.0
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
_JSON = (b"content-type", b"application/json; charset=UTF-8")
_SEND = re.compile(r"/v1/projects/([^/]+)/messages:send(?:\?.*)?").fullmatch


@frozen
class Error:
    """
    How Google answers a kind of error (google.rpc.Status).

    Attributes:
        of_fcm: Is the word in a detail of type FcmError?
        retry_after: Seconds in Retry-After, 0: none.
    """

    code: int
    status: str
    message: str
    of_fcm: bool = True
    retry_after: int = 0


ERRORS = {
    "UNREGISTERED": Error(404, "NOT_FOUND", "Requested entity was not found."),
    "NOT_FOUND": Error(404, "NOT_FOUND", "Requested entity was not found.", of_fcm=False),
    "INVALID_ARGUMENT": Error(400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
    "SENDER_ID_MISMATCH": Error(403, "PERMISSION_DENIED", "SenderId mismatch"),
    "PERMISSION_DENIED": Error(
        403,
        "PERMISSION_DENIED",
        "Permission 'cloudmessaging.messages.create' denied on resource (or it may not exist).",
        of_fcm=False,
    ),
    "QUOTA_EXCEEDED": Error(
        429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Send requests'.", retry_after=60
    ),
    "RESOURCE_EXHAUSTED": Error(
        429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).", of_fcm=False
    ),
    "UNAVAILABLE": Error(503, "UNAVAILABLE", "The service is currently unavailable.", retry_after=30),
    "INTERNAL": Error(500, "INTERNAL", "Internal error encountered."),
    "UNSPECIFIED_ERROR": Error(500, "INTERNAL", "Internal error encountered."),
    "THIRD_PARTY_AUTH_ERROR": Error(401, "UNAUTHENTICATED", "Auth error from APNS or Web Push Service"),
    "APNS_AUTH_ERROR": Error(401, "UNAUTHENTICATED", "Auth error from APNS"),
    "UNAUTHENTICATED": Error(
        401,
        "UNAUTHENTICATED",
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other"
        " valid authentication credential.",
        of_fcm=False,
    ),
}
USUAL = {
    "400": "INVALID_ARGUMENT",
    "401": "UNAUTHENTICATED",
    "403": "SENDER_ID_MISMATCH",
    "404": "UNREGISTERED",
    "429": "QUOTA_EXCEEDED",
    "500": "INTERNAL",
    "503": "UNAVAILABLE",
}
# RFC 6749 section 5.2, and what Google adds.
OAUTH_ERRORS = {
    "invalid_grant": (400, "Invalid JWT Signature."),
    "invalid_client": (401, "The OAuth client was not found."),
    "invalid_scope": (400, "Invalid OAuth scope or ID token audience provided."),
    "invalid_request": (400, "Bad Request"),
    "unsupported_grant_type": (400, "Invalid grant_type"),
    "unauthorized_client": (401, "Unauthorized"),
    "disabled_client": (401, "The OAuth client was disabled."),
    "account_disabled": (400, "Service account is disabled."),
    "internal_failure": (500, "Internal failure"),
    "temporarily_unavailable": (503, "Service unavailable"),
    "rate_limit_exceeded": (429, "Rate limit exceeded"),
}
OAUTH_USUAL = {
    "400": "invalid_grant",
    "401": "invalid_client",
    "429": "rate_limit_exceeded",
    "500": "internal_failure",
    "503": "temporarily_unavailable",
}


class FCMEmulator(Emulator):
    """
    One project of Firebase's.

    Attributes:
        credentials: The service account that may send.
        unregistered: Registration tokens whose app was removed: 404 UNREGISTERED.
        grants: How many access tokens were handed out.
    """

    service = "fcm"

    def __init__(
        self,
        authority: Authority | None = None,
        credentials: FCMCredentials | None = None,
        clock: IReactorTime | None = None,
        capacity: int = CAPACITY,
        host: str = "",
        max_streams: int = 100,
        expires_in: int = 3599,
    ) -> None:
        """
        Args:
            authority: With the emulator's certificate; by default new ones.
            max_streams: For clients that speak HTTP/2.
            expires_in: How long an access token is good for, seconds.
        """
        self.authority = authority or make_test_authority()
        self.credentials = credentials or make_fcm_credentials()
        super().__init__(self.authority.server, clock, capacity, host)
        self.max_streams = max_streams
        self.expires_in = expires_in
        self.unregistered: set[str] = set()
        self.grants = 0
        self._public_key = self.credentials.key.public_key()
        self._access: dict[str, float] = {}  # access tokens, and when they end

    @property
    def token_uri(self) -> str:
        return f"https://{self.endpoint}/token"

    def service_account(self) -> bytes:
        """The account's JSON file with `token_uri` in it; after `listen`."""
        return self.credentials.service_account(self.token_uri)

    def revoke(self) -> None:
        """From now on no access token is good that was handed out before."""
        self._access.clear()

    def token_of(self, request: Request) -> str:
        if self.kind_of(request) == "oauth":
            return ""
        try:
            return str(orjson.loads(request.body)["message"]["token"])
        except (ValueError, TypeError, KeyError):
            return ""

    def kind_of(self, request: Request) -> str:
        return "oauth" if request.path.partition("?")[0] == "/token" else "send"

    def knows(self, word: str, on: str) -> bool:
        words, statuses = (OAUTH_ERRORS, OAUTH_USUAL) if on == "oauth" else (ERRORS, USUAL)
        return word in words or word in statuses

    def respond(self, request: Request) -> tuple[Reply, Any]:
        if self.kind_of(request) == "oauth":
            return self._grant(request), None
        return self._send(request)

    def refusal(self, request: Request, word: str, retry_after: int) -> Reply:
        if self.kind_of(request) == "oauth":
            return _oauth_error(OAUTH_USUAL.get(word, word), retry_after=retry_after)
        return _refuse(USUAL.get(word, word), retry_after=retry_after)

    # Sending.

    def _send(self, request: Request) -> tuple[Reply, Any]:
        path = _SEND(request.path)
        if path is None or request.method != "POST":
            return _refuse("NOT_FOUND"), None
        scheme, _, access = request.header(b"authorization").partition(" ")
        end = self._access.get(access) if scheme.lower() == "bearer" else None
        if end is None or end <= self.now():
            return _refuse("UNAUTHENTICATED"), None
        if path[1] != self.credentials.project_id:
            return _refuse("PERMISSION_DENIED"), None
        try:
            content = orjson.loads(request.body)
        except ValueError:
            return _refuse("INVALID_ARGUMENT", "Invalid JSON payload received.", of_fcm=False), None
        problems = malformed(content)
        if problems:
            return _refuse("INVALID_ARGUMENT", problems=problems, of_fcm=False), None
        problems = refused(content)
        if problems:
            return _refuse("INVALID_ARGUMENT", problems=problems), None
        message = plain(content)["message"]
        if message.get("token") in self.unregistered:
            return _refuse("UNREGISTERED"), None
        name = f"projects/{path[1]}/messages/0:{int(self.now() * 1e6)}%{self.count:016x}"
        return Reply(200, (_JSON,), orjson.dumps({"name": name})), message

    # The token endpoint.

    def _grant(self, request: Request) -> Reply:
        if request.method != "POST":
            return _oauth_error("invalid_request")
        try:
            form = parse_qs(request.body.decode("ascii"), max_num_fields=20)
        except ValueError:
            return _oauth_error("invalid_request")
        if form.get("grant_type") != [GRANT]:
            return _oauth_error("unsupported_grant_type")
        if len(form.get("assertion", ())) != 1:
            return _oauth_error("invalid_request", "Missing required parameter: assertion")
        problem = self._problem_of(form["assertion"][0])
        if problem is not None:
            return _oauth_error(*problem)
        self.grants += 1
        access = f"ya29.{secrets.token_urlsafe(120)}"
        now = self.now()
        self._access = {each: end for each, end in self._access.items() if end > now}
        self._access[access] = now + self.expires_in
        content = {"access_token": access, "expires_in": self.expires_in, "token_type": "Bearer"}
        return Reply(200, (_JSON,), orjson.dumps(content))

    def _problem_of(self, assertion: str) -> tuple[str, str] | None:
        """OAuth's error and its description, ``None`` for an assertion that is good (RFC 7523)."""
        options: Any = {"verify_iat": False, "verify_exp": False, "verify_nbf": False, "verify_aud": False}
        try:
            claims = jwt.decode(assertion, self._public_key, algorithms=["RS256"], options=options)
        except jwt.InvalidSignatureError:
            return "invalid_grant", "Invalid JWT Signature."
        except jwt.PyJWTError:
            return "invalid_grant", "Invalid JWT: Failed to parse."
        if claims.get("iss") != self.credentials.client_email:
            return "invalid_grant", "Invalid grant: account not found"
        if claims.get("aud") != self.token_uri:
            return "invalid_grant", "Invalid JWT: Failed audience check."
        scope = claims.get("scope")
        if not isinstance(scope, str) or not set(scope.split()) & set(SCOPES):
            return "invalid_scope", "Invalid OAuth scope or ID token audience provided."
        issued, end = claims.get("iat"), claims.get("exp")
        if not isinstance(issued, int | float) or not isinstance(end, int | float):
            return "invalid_grant", "Invalid JWT: iat and exp are required."
        now = self.now()
        if not now - SKEW - LIFETIME <= issued <= now + SKEW or end <= now - SKEW or end - issued > LIFETIME:
            return (
                "invalid_grant",
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
                " Check your iat and exp values in the JWT claim.",
            )
        return None


def _refuse(
    word: str,
    message: str = "",
    problems: list[tuple[str, str]] | None = None,
    retry_after: int = 0,
    of_fcm: bool = True,
) -> Reply:
    error = ERRORS[word]
    details: list[dict[str, Any]] = []
    if problems:
        message = "\n".join(description for _field, description in problems)
        violations = [{"field": name, "description": text} for name, text in problems]
        details.append({"@type": BAD_REQUEST, "fieldViolations": violations})
    if error.of_fcm and of_fcm:
        details.append({"@type": FCM_ERROR, "errorCode": word})
    content: dict[str, Any] = {
        "code": error.code,
        "message": message or error.message,
        "status": error.status,
    }
    if details:
        content["details"] = details
    headers: tuple[tuple[bytes, bytes], ...] = (_JSON,)
    seconds = retry_after or error.retry_after
    if seconds:
        headers += ((b"retry-after", b"%d" % seconds),)
    return Reply(error.code, headers, orjson.dumps({"error": content}), word)


def _oauth_error(error: str, description: str = "", retry_after: int = 0) -> Reply:
    status, usual = OAUTH_ERRORS.get(error, (400, "Bad Request"))
    headers: tuple[tuple[bytes, bytes], ...] = (_JSON,)
    if retry_after:
        headers += ((b"retry-after", b"%d" % retry_after),)
    content = {"error": error, "error_description": description or usual}
    return Reply(status, headers, orjson.dumps(content), error)


def sign_assertion(
    credentials: FCMCredentials, token_uri: str, issued: float | None = None, **changes: Any
) -> str:
    """What a service account asks for an access token with, for tests that ask the emulator themselves."""
    now = int(time.time() if issued is None else issued)
    claims = {
        "iss": credentials.client_email,
        "scope": SCOPES[0],
        "aud": token_uri,
        "iat": now,
        "exp": now + 3600,
        **changes,
    }
    return jwt.encode(claims, credentials.key, algorithm="RS256", headers={"kid": credentials.key_id})
