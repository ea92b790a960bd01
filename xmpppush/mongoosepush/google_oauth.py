"""
Access tokens of a Google service account (RFC 7523: a signed JWT for a bearer token).

One look-up is under way at a time, and the next comes before the token ends, so that no notification
waits for one but the first.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import orjson
from attrs import field, frozen
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from xmpppush.errors import ConfigError, TryLater
from xmpppush.http.agent import PooledAgent
from xmpppush.http.client import JSONClient
from xmpppush.http.origins import parse_origin
from xmpppush.http.outage import Outage
from xmpppush.http.responses import parse_retry_after

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_LIFETIME = 3600  # seconds; Google takes no longer one
MARGIN = 10.0  # seconds before its end from which on a token is not used: the request has to get there
# A token that is refused at this age or younger and never worked is not worth replacing at once: the next
# one would be refused, too.
YOUNG = 60.0
# Seconds between tries after failures; doubled with each, up to the longest where the account is refused
# and to a fifth of it where the endpoint has a fault.
FIRST_WAIT = 2.0
LONGEST_WAIT = 300.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_TOKEN = re.compile(r"[!-~]{1,8192}")
_ERROR_WORD = re.compile(r"[a-z_]{1,40}")
_HINTS = {
    "invalid_grant": "; the key was revoked, the account deleted, or this machine's clock is wrong",
    "unauthorized_client": "; the account may not send: enable the Firebase Cloud Messaging API",
    "invalid_client": "; Google does not know the account",
}
_FIX = (
    "make a key in the Firebase console (project settings, service accounts) and use its JSON file as it is"
)


@frozen
class ServiceAccount:
    """What a service account's JSON file says."""

    project_id: str
    client_email: str
    private_key_id: str
    private_key: RSAPrivateKey = field(repr=False)
    token_uri: str


def read_service_account(path: Path, where: str) -> ServiceAccount:
    """
    Read a service account's JSON file.

    Args:
        where: Section and key, for the message.

    Raises:
        ConfigError: It cannot be read, or is none; one line.
    """
    try:
        return _service_account(path.read_bytes())
    except OSError as error:
        problem = f"{path}: {error.strerror}"
    except ValueError as error:
        problem = f"{path}: {error}; {_FIX}"
    raise ConfigError([f"{where}: {problem}"])


def _service_account(content: bytes) -> ServiceAccount:
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise ValueError("not JSON") from None
    if not isinstance(found, dict) or found.get("type") != "service_account":
        raise ValueError("not the key of a service account")
    for name in ("project_id", "client_email", "private_key", "token_uri"):
        if not isinstance(found.get(name), str) or not found[name].strip():
            raise ValueError(f"no '{name}' in it")
    try:
        key = load_pem_private_key(found["private_key"].encode(), None)
    except Exception:  # cryptography has several, and some quote what they read
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("its 'private_key' is no RSA key in PEM")
    try:
        origin, _ = parse_origin(found["token_uri"])
    except ValueError:
        raise ValueError("its 'token_uri' is no URL") from None
    if origin.scheme != "https" and origin.host not in _LOOPBACK:
        raise ValueError("its 'token_uri' is not https")
    if not re.fullmatch(r"[A-Za-z0-9.:_-]{1,100}", found["project_id"]):
        raise ValueError("its 'project_id' is none")
    key_id = found.get("private_key_id")
    return ServiceAccount(
        found["project_id"],
        found["client_email"],
        key_id if isinstance(key_id, str) else "",
        key,
        found["token_uri"],
    )


def assertion(account: ServiceAccount, now: float) -> str:
    """The JWT that is exchanged for an access token."""
    claims = {
        "iss": account.client_email,
        "scope": SCOPE,
        "aud": account.token_uri,
        "iat": int(now),
        "exp": int(now) + ASSERTION_LIFETIME,
    }
    headers = {"kid": account.private_key_id} if account.private_key_id else None
    return jwt.encode(claims, account.private_key, algorithm="RS256", headers=headers)


class NoToken(TryLater):
    """
    There is no access token; the text is a word of the API.

    Attributes:
        cause: For the log.
    """

    def __init__(self, word: str, cause: str, after: float | None = None) -> None:
        super().__init__(word, after)
        self.cause = cause


def read_token(code: int, body: bytes, after: float | None = None) -> tuple[str, float]:
    """
    The token of the token endpoint's answer, and for how many seconds it is good.

    Args:
        after: Its Retry-After, in seconds.

    Raises:
        NoToken: There is none in it.
    """
    content = _object_in(body)
    if code == 200:
        token, lifetime = content.get("access_token"), content.get("expires_in", 3600)
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise NoToken("service_internal", "answer without an access token")
        if not isinstance(lifetime, int | float) or lifetime <= 0:
            raise NoToken("service_internal", "answer with a token that has no lifetime")
        return token, float(min(lifetime, 86_400))
    word = content.get("error")
    if code in (400, 401, 403) and isinstance(word, str) and _ERROR_WORD.fullmatch(word):
        raise NoToken("internal_config", word + _HINTS.get(word, ""))
    raise NoToken("service_internal", f"HTTP {code}", after)


def _object_in(body: bytes) -> dict[str, Any]:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}


class GoogleTokens:
    """
    The access token of an account, renewed when eight to nine tenths of its time are over.

    After a failure the next try waits: seconds where the endpoint had a fault, up to five minutes where it
    does not want this account. Meanwhile whoever asks is told so at once; a token that is still good is
    used to its end.
    """

    _log = Logger()

    def __init__(
        self,
        account: ServiceAccount,
        pool: str,
        agent: PooledAgent,
        clock: IReactorTime,
        random: Callable[[], float],
    ) -> None:
        """
        Args:
            pool: Its name, for the log.
            random: 0.0 to 1.0.
        """
        self._account = account
        self._pool = pool
        self._http = JSONClient(agent)
        self._clock = clock
        self._random = random
        self._token: bytes | None = None
        self._born = 0.0
        self._ends = 0.0
        self._renewal: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None
        self._failures = 0
        self._problem: NoToken | None = None
        self._waiting: dict[Deferred[bytes], None] = {}
        self._outage = Outage()
        self._proven = False
        self._doubted = False
        self._stopped = False

    @property
    def well(self) -> bool:
        """Is there a token that nothing speaks against?"""
        return self.current is not None and not self._doubted

    @property
    def current(self) -> bytes | None:
        """The token, ``None`` where there is no good one now."""
        return self._token if self._clock.seconds() < self._ends else None

    def start(self) -> None:
        """Get the first one."""
        if self._renewal is None and self._token is None and not self._stopped:
            self._renew()

    def stop(self) -> None:
        """Nothing is under way any more; who waits is told `TryLater`."""
        self._stopped = True
        self._cancel_timer()
        self._token, self._ends = None, 0.0
        self._refuse_waiting(NoToken("service_internal", "stopping"))
        if self._renewal is not None:
            self._renewal.cancel()

    def get(self) -> "Deferred[bytes]":
        """
        A good token.

        Raises:
            NoToken: There is none, and will not be soon.
        """
        token = self.current
        if token is not None:
            return succeed(token)
        if self._stopped:
            return fail(NoToken("service_internal", "stopping"))
        if self._renewal is None:
            if self._problem is not None and self._timer is not None:
                wait = max(0.0, self._timer.getTime() - self._clock.seconds())
                return fail(NoToken(self._problem.reason, self._problem.cause, wait))
            self._renew()
            if self._renewal is None:  # it is over already
                return self.get()
        waiting: Deferred[bytes] = Deferred(lambda it: self._waiting.pop(it, None))
        self._waiting[waiting] = None
        return waiting

    def reject(self, token: bytes) -> None:
        """FCM does not take this token: it was revoked, or the account was."""
        if token != self._token:
            return  # it has been replaced since
        age = self._clock.seconds() - self._born
        self._token, self._ends = None, 0.0
        if self._renewal is not None:
            return
        self._cancel_timer()
        if self._proven or age > YOUNG:
            self._renew()
        else:
            self._doubted = True
            self._failed(NoToken("internal_config", "FCM refuses a token that is new"))

    def accepted(self) -> None:
        """FCM took a token."""
        self._proven = True
        if self._failures and self._problem is None:
            self._failures = 0
            self._doubted = False
            self._well_again()

    def _renew(self) -> None:
        self._cancel_timer()
        self._renewal = asked = Deferred.fromCoroutine(self._ask())
        asked.addCallbacks(self._got, self._explain)

    async def _ask(self) -> tuple[str, float]:
        now = self._clock.seconds()
        form = {"grant_type": GRANT_TYPE, "assertion": assertion(self._account, now)}
        response = await self._http.post(self._account.token_uri, data=form, allow_redirects=False)
        body = await response.content()
        after = response.headers.getRawHeaders(b"retry-after", [None])[0]
        return read_token(response.code, body, parse_retry_after(after, now))

    def _got(self, found: tuple[str, float]) -> None:
        token, lifetime = found
        now = self._clock.seconds()
        self._renewal = self._problem = None
        self._proven = False
        self._token = b"Bearer " + token.encode("ascii")
        self._born, self._ends = now, now + max(lifetime - MARGIN, lifetime / 2)
        self._timer = self._clock.callLater(lifetime * (0.8 + 0.1 * self._random()), self._renew)
        if not self._doubted:
            self._failures = 0
            self._well_again()
        waiting, self._waiting = self._waiting, {}
        for each in waiting:
            each.callback(self._token)

    def _explain(self, failure: Failure) -> None:
        self._renewal = None
        if self._stopped:
            return
        error = failure.value
        if isinstance(error, TryLater) and not isinstance(error, NoToken):
            error = NoToken("service_internal", error.reason)
        if not isinstance(error, NoToken):
            self._log.failure("asking for an access token failed unexpectedly", failure)
            error = NoToken("service_internal", "internal error")
        self._failed(error)

    def _failed(self, problem: NoToken) -> None:
        self._failures += 1
        cap = LONGEST_WAIT if problem.reason == "internal_config" else LONGEST_WAIT / 5
        wait = min(cap, FIRST_WAIT * 2 ** min(self._failures - 1, 20)) * (0.5 + self._random() / 2)
        wait = min(max(wait, problem.after or 0.0), LONGEST_WAIT)
        self._problem = problem
        self._timer = self._clock.callLater(wait, self._renew)
        if self._outage.failed(problem.cause, self._clock.seconds()):
            self._log.error(
                "fcm pool {pool}: no access token from {url}: {reason}",
                pool=self._pool,
                url=self._account.token_uri,
                reason=problem.cause,
            )
        self._refuse_waiting(NoToken(problem.reason, problem.cause, wait))

    def _refuse_waiting(self, error: NoToken) -> None:
        waiting, self._waiting = self._waiting, {}
        for each in waiting:
            each.errback(error)

    def _well_again(self) -> None:
        lasted = self._outage.succeeded(self._clock.seconds())
        if lasted is not None:
            self._log.info(
                "fcm pool {pool}: access tokens again after {seconds} s",
                pool=self._pool,
                seconds=round(lasted, 1),
            )

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
