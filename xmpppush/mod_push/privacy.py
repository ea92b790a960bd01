"""What of a message may leave this server (XEP-0357 section 12): pure."""

import unicodedata

from attrs import frozen

from xmpppush.model import Notification, PushSummary

MESSAGE_SENDER = "message-sender"  # the plugin hints' own field

_JOINER = "\u200d"
# A cut goes back so far at the most: there are "letters" of a thousand accents.
_LONGEST_CLUSTER = 32


@frozen
class Privacy:
    """
    Attributes:
        include_body, include_sender: ``[mod_push]`` keys of these names.
        hidden_body_text: In place of a body that is kept back, encrypted or not there; ``""``: none.
        max_body_length: Characters; ``0``: as many as there are.
    """

    include_body: bool = True
    include_sender: bool = True
    hidden_body_text: str = "New message"
    max_body_length: int = 1000

    def applied_to(self, notification: Notification) -> Notification:
        """The same notification where nothing is to be kept back."""
        summary, limit = notification.summary, self.max_body_length
        body = summary.last_message_body
        if body and self.include_body and self.include_sender and (not limit or len(body) <= limit):
            return notification
        if not body or not self.include_body:
            body = self.hidden_body_text or None
        elif limit:
            body = beginning_of(body, limit)
        sender, extra = summary.last_message_sender, notification.extra
        if not self.include_sender:
            sender = None
            extra = {var: value for var, value in extra.items() if var != MESSAGE_SENDER}
        return Notification(
            PushSummary(summary.message_count, summary.pending_subscription_count, sender, body), extra
        )


DEFAULT_PRIVACY = Privacy()


def beginning_of(text: str, limit: int) -> str:
    """
    ``text``, or its beginning and an ellipsis, together ``limit`` characters at the most.

    What a reader takes for one character stays whole: a letter with its accents, an emoji with its skin
    tone, a family, a flag. (Not all of Unicode's grapheme clusters, which need its tables.)
    """
    if len(text) <= limit:
        return text
    cut = limit - 1
    for earlier in range(cut, max(0, cut - _LONGEST_CLUSTER), -1):
        if not _is_inside(text, earlier):
            cut = earlier
            break
    return text[:cut].rstrip() + "…"


def _is_inside(text: str, place: int) -> bool:
    """Would a cut before ``text[place]`` go through a character?"""
    after, before = text[place], text[place - 1]
    if _extends(after) or before == _JOINER:
        return True
    if _is_flag_half(after) and _is_flag_half(before):
        start = place
        while start > 0 and place - start < 2 * _LONGEST_CLUSTER and _is_flag_half(text[start - 1]):
            start -= 1
        return (place - start) % 2 == 1
    return after == "\n" and before == "\r"


def _extends(character: str) -> bool:
    code = ord(character)
    if code < 0x300:
        return False
    return (
        character == _JOINER
        or 0x1F3FB <= code <= 0x1F3FF  # skin tones
        or 0xE0020 <= code <= 0xE007F  # tags of regional flags
        or unicodedata.category(character) in ("Mn", "Me", "Mc")  # marks, variation selectors among them
    )


def _is_flag_half(character: str) -> bool:
    return 0x1F1E6 <= ord(character) <= 0x1F1FF
