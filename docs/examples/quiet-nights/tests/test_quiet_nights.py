"""Run with pytest where xmpppush and this package are installed."""

from datetime import datetime

import pytest
from twisted.plugins.quietnights_plugin import QuietNights, quiet_nights

from xmpppush.testing.plugins import CHECKS
from xmpppush.testing.sessions import stanza_of

MESSAGE = "<message type='chat' from='bob@localhost/x'><body>Hello</body></message>"
CALL = "<message from='bob@localhost/x'><propose xmlns='urn:xmpp:jingle-message:0' id='1'/></message>"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check):
    """What every push plugin does."""
    check(quiet_nights)


@pytest.mark.parametrize(
    ("hour", "message", "push"),
    [(21, MESSAGE, True), (22, MESSAGE, False), (3, MESSAGE, False), (7, MESSAGE, True), (3, CALL, True)],
)
def test_nights_are_quiet(hour, message, push):
    """Only a call wakes anybody."""
    plugin = QuietNights(now=lambda: datetime(2026, 1, 1, hour))
    assert bool(plugin.should_publish("alice@localhost", stanza_of(message))) is push
