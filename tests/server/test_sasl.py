from base64 import b64encode
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scramp import ScramClient, ScramMechanism
from twisted.internet.defer import Deferred, succeed
from zope.interface.verify import verifyObject

from xmpppush.interfaces import IAuthenticator
from xmpppush.model import Account
from xmpppush.server.authenticator import AccountAuthenticator
from xmpppush.server.sasl import (
    ITERATIONS,
    SCRAM,
    SCRAM_SHA_1,
    SCRAM_SHA_256,
    BadPassword,
    SASLFailure,
    Scram,
    account_of,
    decode,
    derive_keys,
    encode,
    fits,
    pretended_keys,
    read_plain,
)

KEYS = derive_keys("secret")
SECRET = b"s" * 32


def a_scram(mechanism: str = SCRAM_SHA_256) -> Scram:
    return Scram(mechanism, "localhost", SECRET, lambda size: b"n" * size)


def a_client(password: str = "secret", mechanism: str = SCRAM_SHA_256, user: str = "alice") -> ScramClient:
    return ScramClient([mechanism], user, password)


def condition(function, *arguments) -> str:
    with pytest.raises(SASLFailure) as caught:
        function(*arguments)
    return caught.value.condition


# base64


def test_content_is_base64():
    """Nothing is None, '=' is nothing sent on purpose (RFC 6120 section 6.4.2)."""
    assert decode("") is None
    assert decode("=") == b""
    assert decode("AGE=") == b"\0a"
    assert encode(b"\0a") == "AGE="
    assert encode(b"") == "="


@pytest.mark.parametrize("text", ["AGE", "A", "AG E=", "AGE=\n", "AGE=AGE=", "!", "ä", "===="])
def test_what_is_not_base64_is_incorrect_encoding(text):
    """Anything else is incorrect-encoding."""
    assert condition(decode, text) == "incorrect-encoding"


def test_endless_content_is_malformed():
    """Long names would keep stringprep busy."""
    assert condition(decode, "A" * 8192) == "malformed-request"


# PLAIN


def test_plain():
    """User and password, and an authorization identity that is the user's own."""
    login = read_plain("\0Alice\0pass wörd".encode(), "localhost")
    assert (login.account, login.password) == ("alice@localhost", "pass wörd")
    assert "wörd" not in repr(login)
    assert read_plain(b"alice@localhost\0alice\0secret", "localhost").account == "alice@localhost"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "malformed-request"),
        (b"alice\0secret", "malformed-request"),
        (b"\0alice\0secret\0", "malformed-request"),
        (b"\0\0secret", "malformed-request"),
        (b"\0alice\0", "malformed-request"),
        (b"\0\xff\0secret", "malformed-request"),
        (b"bob@localhost\0alice\0secret", "invalid-authzid"),
        (b"alice@localhost/phone\0alice\0secret", "invalid-authzid"),
        (b"@\0alice\0secret", "invalid-authzid"),
        (b"\0bob@elsewhere\0secret", "not-authorized"),
        (b"\0bob@localhost\0secret", "not-authorized"),
        (b"\0localhost/bob\0secret", "not-authorized"),
        (b"\0a b\0secret", "not-authorized"),
        (b"\0" + b"a" * 1100 + b"\0secret", "not-authorized"),
    ],
)
def test_bad_plain(data, expected):
    """Each mistake has its condition (RFC 6120 section 6.5); no user name leaves its domain."""
    assert condition(read_plain, data, "localhost") == expected


def test_account_of_a_user_name():
    """Prepared as a JID."""
    assert account_of("ALICE", "localhost") == "alice@localhost"


# SCRAM


@pytest.mark.parametrize("mechanism", SCRAM)
def test_scram(mechanism):
    """A client that knows the password gets a proof that the server knows the keys."""
    client, server = a_client(mechanism=mechanism), a_scram(mechanism)
    first = client.get_client_first().encode()
    assert server.first(first) == "alice@localhost"
    client.set_server_first(server.challenge(KEYS[mechanism]).decode())
    client.set_server_final(server.final(client.get_client_final().encode()).decode())


def test_scram_with_own_authorization_identity():
    """scramp knows no authzid: client and server agree on it all the same."""
    client, server = a_client(), a_scram()
    client.gs2_header = _WithIdentity()
    assert server.first(client.get_client_first().encode()) == "alice@localhost"
    client.set_server_first(server.challenge(KEYS[SCRAM_SHA_256]).decode())
    client.set_server_final(server.final(client.get_client_final().encode()).decode())


class _WithIdentity:
    def __str__(self) -> str:
        return "n,a=alice@localhost,"

    def make_cbind_input(self, binding: object) -> bytes:
        return str(self).encode()


def test_scram_client_that_would_bind_is_welcome():
    """'y': the client could do channel binding and saw that we do not offer it."""
    server = a_scram()
    assert server.first(b"y,,n=alice,r=abc") == "alice@localhost"


def test_scram_names_are_unescaped_and_prepared():
    """'=2C' is a comma, capitals are the same name."""
    assert a_scram().first(b"n,,n=A=2CB,r=abc") == "a,b@localhost"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "malformed-request"),
        (b"n,,", "malformed-request"),
        (b"n,,n=alice", "malformed-request"),
        (b"n,,r=abc,n=alice", "malformed-request"),
        (b"n,,n=,r=abc", "malformed-request"),
        (b"n,,n=al=ice,r=abc", "malformed-request"),
        (b"n,,n=alice,r=", "malformed-request"),
        (b"n,,n=alice,r=\x01", "malformed-request"),
        (b"n,,m=1,n=alice,r=abc", "malformed-request"),
        (b"x,,n=alice,r=abc", "malformed-request"),
        (b"n,bob,n=alice,r=abc", "malformed-request"),
        (b"p=tls-unique,,n=alice,r=abc", "malformed-request"),
        (b"p=tls-exporter,,n=alice,r=abc", "malformed-request"),
        (b"n,,n=\xff,r=abc", "malformed-request"),
        (b"n,a=bob@localhost,n=alice,r=abc", "invalid-authzid"),
        (b"n,,n=bob@elsewhere,r=abc", "not-authorized"),
    ],
)
def test_bad_scram_first(data, expected):
    """Each mistake has its condition."""
    assert condition(a_scram().first, data) == expected


def test_scram_wrong_password():
    """A proof that proves nothing is not-authorized."""
    client, server = a_client("wrong"), a_scram()
    server.first(client.get_client_first().encode())
    client.set_server_first(server.challenge(KEYS[SCRAM_SHA_256]).decode())
    assert condition(server.final, client.get_client_final().encode()) == "not-authorized"


@pytest.mark.parametrize("change", [b"c=biws", b"r=", b"p=", b"\xff", b""])
def test_bad_scram_final(change):
    """A message with another nonce, header or no proof is malformed, not a guess at the password."""
    client, server = a_client(), a_scram()
    server.first(client.get_client_first().encode())
    client.set_server_first(server.challenge(KEYS[SCRAM_SHA_256]).decode())
    good = client.get_client_final().encode()
    bad = {
        b"c=biws": good.replace(b"c=biws", b"c=eSws"),
        b"r=": good.replace(b"r=", b"r=x"),
        b"p=": good.partition(b",p=")[0],
        b"\xff": good + b"\xff",
        b"": b"",
    }[change]
    assert condition(server.final, bad) == "malformed-request"


def test_unknown_account_looks_like_a_known_one():
    """It gets a salt of its own, the same each time, the same count, and fails at the end only."""
    challenges = []
    for _ in range(2):
        client, server = a_client(user="nobody"), a_scram()
        server.first(client.get_client_first().encode())
        client.set_server_first(server.challenge(None).decode())
        challenges.append((bytes(client.salt), int(client.iterations)))
        assert condition(server.final, client.get_client_final().encode()) == "not-authorized"
    assert challenges[0] == challenges[1]
    salt, iterations = challenges[0]
    assert (len(salt), iterations) == (len(KEYS[SCRAM_SHA_256].salt), ITERATIONS)
    assert pretended_keys(SECRET, SCRAM_SHA_256, "other@localhost").salt != salt
    assert pretended_keys(b"other" * 8, SCRAM_SHA_256, "nobody@localhost").salt != salt


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100), st.binary(max_size=100))
def test_any_octets_fail_as_sasl(first, final):
    """Whatever a client sends, what comes out is a SASLFailure."""
    server = a_scram()
    for step in (lambda: read_plain(first, "localhost"), lambda: server.first(b"n,,n=" + first)):
        with suppress(SASLFailure):
            step()
    server = a_scram()
    server.first(b"n,,n=alice,r=abc")
    server.challenge(KEYS[SCRAM_SHA_256])
    with pytest.raises(SASLFailure):
        server.final(final)


# keys


def test_derived_keys():
    """One set for each mechanism, each with a salt of its own; the password is nowhere."""
    keys = derive_keys("secret", random=lambda size: b"x" * size)
    assert set(keys) == set(SCRAM)
    assert [len(keys[name].stored_key) for name in (SCRAM_SHA_1, SCRAM_SHA_256)] == [20, 32]
    assert derive_keys("secret", random=lambda size: b"x" * size) == keys
    assert all(key.iterations >= 4096 and len(key.salt) >= 16 for key in keys.values())
    assert KEYS[SCRAM_SHA_1].salt != KEYS[SCRAM_SHA_256].salt
    assert derive_keys("other", random=lambda size: b"x" * size) != keys


def test_passwords_are_prepared():
    """SASLprep (RFC 4013): a soft hyphen is nothing, a ligature its letters."""
    keys = derive_keys("I\u00adX\ufb01")
    assert fits("IXfi", SCRAM_SHA_256, keys[SCRAM_SHA_256])


@pytest.mark.parametrize("mechanism", SCRAM)
@pytest.mark.parametrize("password", ["pencil", "I\u00adX\ufb01", "\u0627\u00a0\u0628", "x" * 200])
def test_keys_are_those_of_scramp(mechanism, password):
    """Clients and other servers derive the same ones (RFC 5802 section 3)."""
    keys = derive_keys(password, iterations=5000)[mechanism]
    theirs = ScramMechanism(mechanism).make_auth_info(password, 5000, keys.salt)
    assert (keys.salt, keys.stored_key, keys.server_key, keys.iterations) == theirs


@pytest.mark.parametrize("password", ["", "\u00ad", "a\u0007b", "\u0627\u0031"])
def test_bad_passwords(password):
    """Empty after preparation, or with what RFC 4013 forbids; the error does not quote it."""
    with pytest.raises(BadPassword) as caught:
        derive_keys(password)
    assert not password or password not in str(caught.value)


@pytest.mark.parametrize("password", ["Secret", "", "a\u0007b", "x" * 10_000])
def test_what_does_not_fit(password):
    """Wrong, forbidden and endless passwords are simply wrong."""
    assert not fits(password, SCRAM_SHA_256, KEYS[SCRAM_SHA_256])


# accounts


class Accounts:
    def get(self, jid: str) -> "Deferred[Account | None]":
        keys = {"alice@localhost": KEYS, "old@localhost": {SCRAM_SHA_1: KEYS[SCRAM_SHA_1]}}.get(jid)
        return succeed(None if keys is None else Account(jid, keys))


def test_authenticator():
    """Keys and passwords of the account store; False and None for whoever is not there."""
    authenticator = AccountAuthenticator(Accounts())
    verifyObject(IAuthenticator, authenticator)
    check = authenticator.check_password
    assert check("alice@localhost", "secret").result is True
    assert check("alice@localhost", "wrong").result is False
    assert check("old@localhost", "secret").result is True
    assert check("nobody@localhost", "secret").result is False
    assert authenticator.keys("alice@localhost", SCRAM_SHA_1).result == KEYS[SCRAM_SHA_1]
    assert authenticator.keys("old@localhost", SCRAM_SHA_256).result is None
    assert authenticator.keys("nobody@localhost", SCRAM_SHA_256).result is None


def test_encoding_is_what_clients_expect():
    """A challenge is plain base64."""
    assert encode(b"r=abc") == b64encode(b"r=abc").decode()
