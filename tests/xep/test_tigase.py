"""Tigase's elements in <enable/>, and in what is published."""

import pytest

from xmpppush.errors import BadStanza
from xmpppush.model import Extensions, Room
from xmpppush.testing.sessions import stanza_of
from xmpppush.xep.tigase import parse_extensions, parse_extras

# PEERS.md section 1.8.
ENABLE = """<enable xmlns='urn:xmpp:push:0' jid='push.tigase.im' node='NODE' away='true'>
  <encrypt xmlns='tigase:push:encrypt:0' alg='aes-128-gcm' max-size='2000'>AAECAwQFBgcICQoLDA0ODw==</encrypt>
  <priority xmlns='tigase:push:priority:0'/>
  <muted xmlns='tigase:push:filter:muted:0'><item jid='Bot@example.com'/></muted>
  <groupchat xmlns='tigase:push:filter:groupchat:0'><room jid='r1@muc' allow='always'/>
   <room jid='r2@muc' allow='mentioned' nick='me'/></groupchat>
  <ignore-unknown xmlns='tigase:push:filter:ignore-unknown:0'/>
  <jingle xmlns='tigase:push:jingle:0'/>  <meet xmlns='tigase:push:meet:0'/>
</enable>"""


def test_everything():
    """What Siskin sends."""
    assert parse_extensions(stanza_of(ENABLE)) == Extensions(
        key=bytes(range(16)),
        max_size=2000,
        priority=True,
        muted=frozenset(["bot@example.com"]),
        ignore_unknown=True,
        rooms={"r1@muc": Room("always"), "r2@muc": Room("mentioned", "me")},
        jingle=True,
    )


def test_nothing():
    """A plain enable has none of them."""
    assert parse_extensions(stanza_of("<enable xmlns='urn:xmpp:push:0' jid='a' node='n'/>")) is None


ENCRYPT = "<encrypt xmlns='tigase:push:encrypt:0' {}>{}</encrypt>"
ALG = "alg='aes-128-gcm'"
MANY = "".join(f"<item jid='a{number}@b'/>" for number in range(600))


@pytest.mark.parametrize(
    "inside",
    [
        ENCRYPT.format("alg='aes-256-gcm'", "AAECAwQFBgcICQoLDA0ODw=="),
        ENCRYPT.format("", "AAECAwQFBgcICQoLDA0ODw=="),
        ENCRYPT.format(ALG, "AAEC"),
        ENCRYPT.format(ALG, "no base64"),
        ENCRYPT.format(ALG, "é"),
        ENCRYPT.format(f"{ALG} max-size='-1'", "AAECAwQFBgcICQoLDA0ODw=="),
        ENCRYPT.format(f"{ALG} max-size='{'9' * 5000}'", "AAECAwQFBgcICQoLDA0ODw=="),
        ENCRYPT.format(ALG, "AAECAwQFBgcICQoLDA0ODw==") * 2,
        "<muted xmlns='tigase:push:filter:muted:0'><item jid='@'/></muted>",
        "<muted xmlns='tigase:push:filter:muted:0'><item/></muted>",
        f"<muted xmlns='tigase:push:filter:muted:0'>{MANY}</muted>",
        f"<muted xmlns='tigase:push:filter:muted:0'><item jid='{'a' * 20000}@b'/></muted>",
        "<groupchat xmlns='tigase:push:filter:groupchat:0'><room jid='r@m' allow='maybe'/></groupchat>",
        "<groupchat xmlns='tigase:push:filter:groupchat:0'><room/></groupchat>",
    ],
)
def test_what_cannot_be_used_is_refused(inside):
    """A client that asks for encryption is not to be left without it silently."""
    with pytest.raises(BadStanza):
        parse_extensions(stanza_of(f"<enable xmlns='urn:xmpp:push:0' jid='a' node='n'>{inside}</enable>"))


@pytest.mark.parametrize(
    "inside",
    [
        "<priority xmlns='tigase:push:priority:0'>urgent</priority>",
        f"<encrypted xmlns='tigase:push:encrypt:0' iv='x'>{'y' * 7000}</encrypted>",
        "<encrypted xmlns='tigase:push:encrypt:0'>text</encrypted>",
        "<encrypted xmlns='other' iv='x'>text</encrypted>",
    ],
)
def test_nonsense_in_a_notification_is_left_out(inside):
    """It is another server's."""
    assert parse_extras(stanza_of(f"<notification xmlns='urn:xmpp:push:0'>{inside}</notification>")) is None
