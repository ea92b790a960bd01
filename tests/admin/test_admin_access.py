"""Who may see what a listener of type http shows, by table."""

from base64 import b64encode

import pytest

from xmpppush.admin.access import NO_PASSWORD, NOT_LOCAL, Caller, has_password, refusal_for


def basic(text, scheme="Basic"):
    return f"{scheme} {b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("caller", "allowed"),
    [
        (Caller("127.0.0.1"), True),
        (Caller("127.8.9.1", "localhost"), True),
        (Caller("::1", "::1"), True),
        (Caller("::ffff:127.0.0.1", "127.0.0.1"), True),
        (Caller("127.0.0.1", "metrics.localhost"), True),
        (Caller("127.0.0.1", "LocalHost"), True),
        (Caller(None, "anything.example"), True),  # a unix socket
        (Caller("192.0.2.1"), False),
        (Caller("192.0.2.1", "localhost"), False),
        (Caller("10.0.0.1", "127.0.0.1"), False),
        (Caller("2001:db8::1", "::1"), False),
        (Caller("::ffff:192.0.2.1", "localhost"), False),
        (Caller("", "localhost"), False),
        (Caller("127.0.0.1", "localhost", proxied=True), False),
        (Caller(None, "localhost", proxied=True), False),
        (Caller("127.0.0.1", "attacker.example"), False),  # DNS rebinding
        (Caller("127.0.0.1", "127.0.0.1.attacker.example"), False),
        (Caller("127.0.0.1", "xlocalhost"), False),
        (Caller("127.0.0.1", "192.0.2.1"), False),
        (Caller("192.0.2.1", "localhost", authorization=basic("admin:")), False),
    ],
)
def test_without_a_password_it_is_for_this_machine(caller, allowed):
    """The peer and the name it asks for are both this machine's, and no proxy is between."""
    assert refusal_for(caller, "") == (None if allowed else NOT_LOCAL)


@pytest.mark.parametrize(
    ("authorization", "allowed"),
    [
        (basic("admin:sesam"), True),
        (basic(":sesam"), True),
        (basic("who ever:sesam"), True),
        (basic("admin:sesam", "bAsIc"), True),
        ("Basic  " + basic("admin:sesam")[6:], True),
        ("", False),
        (basic("admin:"), False),
        (basic("admin:Sesam"), False),
        (basic("admin:sesam "), False),
        (basic("sesam"), False),
        (basic("sesam:admin"), False),
        (basic("admin:sesam", "Bearer"), False),
        ("Basic", False),
        ("Basic sesam", False),
        ("Basic ä", False),
        ("Basic YWRtaW46c2VzYW0", False),  # cut off
    ],
)
def test_with_a_password_it_is_for_who_knows_it(authorization, allowed):
    """Basic with any user name, from anywhere."""
    for address, proxied in (("127.0.0.1", False), ("192.0.2.1", True)):
        caller = Caller(address, "x.example", proxied, authorization)
        assert refusal_for(caller, "sesam") == (None if allowed else NO_PASSWORD)


def test_a_password_with_a_colon_and_letters_of_the_world():
    """The first colon ends the user name; the rest is UTF-8 (RFC 7617 section 2.1)."""
    assert has_password(basic("admin:pässwörd:2"), "pässwörd:2")
    assert not has_password(basic("admin:pässwörd:2"), "pässwörd")


def test_what_was_sent_is_not_shown():
    """The credentials stay out of logs."""
    assert "sesam" not in repr(Caller("127.0.0.1", authorization="Basic sesam"))
