"""Run with pytest where xmpppush and this package are installed."""

import pytest
from twisted.plugins.noticeboard_plugin import notice_board

from xmpppush.errors import InvalidPayload
from xmpppush.testing.builders import a_node
from xmpppush.testing.nodetypes import CHECKS
from xmpppush.testing.sessions import stanza_of


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check):
    """What every node type does."""
    check(notice_board)


@pytest.mark.parametrize(
    ("text", "fits"), [("Tea at five", True), ("", False), ("x" * 201, False), ("<b xmlns='urn:x'/>", False)]
)
def test_notices_are_short_texts(text, fits):
    """Anything else is refused."""
    payload = stanza_of(f"<notice xmlns='urn:example:notice'>{text}</notice>")
    if fits:
        notice_board.check_item(a_node(), "alice@localhost", payload)
    else:
        with pytest.raises(InvalidPayload):
            notice_board.check_item(a_node(), "alice@localhost", payload)
