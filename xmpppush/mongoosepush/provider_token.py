"""
APNs' provider tokens: a JWT (ES256) that stands in for a certificate.

Apple takes one for an hour and answers TooManyProviderTokenUpdates to whoever renews his more than once in
twenty minutes.
"""

from collections.abc import Callable

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from xmpppush.http2.headers import pack

RENEW_AFTER = 50 * 60.0
MIN_LIFETIME = 20 * 60.0


class ProviderToken:
    """The token of one key, made when first asked for and renewed in time."""

    def __init__(
        self, key: EllipticCurvePrivateKey, key_id: str, team_id: str, now: Callable[[], float]
    ) -> None:
        self._key = key
        self._key_id = key_id
        self._team_id = team_id
        self._now = now
        self._issued = 0.0
        self._renewed = float("-inf")
        self._header = b""

    def header(self) -> bytes:
        """The request header, packed."""
        now = self._now()
        # A clock that was set back makes a token of the future, which Apple takes for expired, too.
        if not self._header or not 0 <= now - self._issued < RENEW_AFTER:
            self._make(now)
        return self._header

    def replace(self, refused: bytes) -> bool:
        """
        Apple finds this one expired; is there another, or may there be one?

        A clock that runs wrong makes them expire early, and no new one helps then: after one that came too
        soon there is none for twenty minutes.
        """
        if self._header != refused:
            return True
        now = self._now()
        if 0 <= now - self._renewed < MIN_LIFETIME:
            return False
        self._make(now)
        return True

    def _make(self, now: float) -> None:
        if self._header:
            self._renewed = now
        claims = {"iss": self._team_id, "iat": int(now)}
        token = jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self._key_id})
        self._header = pack([(b"authorization", b"bearer " + token.encode("ascii"))])
        self._issued = now
