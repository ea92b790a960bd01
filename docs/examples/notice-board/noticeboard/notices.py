"""What a notice is."""

from twisted.words.xish.domish import Element

from xmpppush.errors import InvalidPayload
from xmpppush.mod_pubsub.nodetypes import FLAT_DEFAULTS
from xmpppush.xep.dataforms import text_of

NOTICE = "urn:example:notice"
LONGEST = 200  # characters

DEFAULTS = {**FLAT_DEFAULTS, "pubsub#access_model": "authorize", "pubsub#max_items": "5"}


def check(payload: Element | None) -> None:
    """Raises what is wrong with it; the text goes to whoever published it."""
    if payload is None or (payload.uri, payload.name) != (NOTICE, "notice"):
        raise InvalidPayload("a notice is <notice xmlns='urn:example:notice'/>")
    if any(payload.elements()) or not 0 < len(text_of(payload)) <= LONGEST:
        raise InvalidPayload(f"a notice is 1 to {LONGEST} characters of text")
