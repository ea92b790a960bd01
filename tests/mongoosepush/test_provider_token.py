"""Provider tokens: made once, renewed in time, and not too often."""

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from twisted.internet.task import Clock

from xmpppush.mongoosepush.apns_certificate import TOPICS, topic_of
from xmpppush.mongoosepush.provider_token import ProviderToken
from xmpppush.testing.providers import make_apns_credentials, make_test_authority

KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(1_000_000)
    return clock


@pytest.fixture
def token(clock):
    return ProviderToken(KEY, "KEYID", "TEAM", clock.seconds)


def test_what_is_in_it(token):
    """ES256, key id, team and time."""
    encoded = token.header().partition(b"bearer ")[2]
    assert jwt.decode(encoded, KEY.public_key(), algorithms=["ES256"], options={"verify_iat": False}) == {
        "iss": "TEAM",
        "iat": 1_000_000,
    }
    assert jwt.get_unverified_header(encoded)["kid"] == "KEYID"


def test_one_token_for_fifty_minutes(token, clock):
    """Between Apple's twenty minutes and its hour."""
    first = token.header()
    clock.advance(2_999)
    assert token.header() == first
    clock.advance(1)
    assert token.header() != first


def test_a_clock_that_is_set_back_renews(token, clock):
    """A token of the future would be refused."""
    first = token.header()
    clock.rightNow -= 100
    assert token.header() != first


def test_an_expired_one_is_replaced_once_in_twenty_minutes(token, clock):
    """Requests that carried the old one use the new one; a new one that expires at once is a wrong clock."""
    first = token.header()
    assert token.replace(first)
    second = token.header()
    assert second != first
    assert token.replace(first)
    assert token.header() == second
    assert not token.replace(second)
    clock.advance(1200)
    assert token.replace(second)


def test_topic_of_a_certificate():
    """The user id; without one the first topic of Apple's list; neither: none."""
    certificate = make_apns_credentials(make_test_authority(), "org.example.app").certificate.certificate
    assert topic_of(certificate) == "org.example.app"
    listed = certificate.extensions.get_extension_for_oid(TOPICS)
    assert topic_of(_certificate(listed.value)) == "org.example.app"
    assert topic_of(_certificate(x509.UnrecognizedExtension(TOPICS, b"\x30\xff\x0c"))) == ""
    assert topic_of(_certificate(None)) == ""


def _certificate(extension):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    like = make_test_authority().authority.certificate
    builder = x509.CertificateBuilder(name, name, KEY.public_key(), 1)
    builder = builder.not_valid_before(like.not_valid_before_utc).not_valid_after(like.not_valid_after_utc)
    if extension is not None:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, SHA256())
