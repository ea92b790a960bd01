"""A stream parser for a stream that many strangers write to, each a stanza at a time."""

from collections.abc import Callable
from typing import Any

from twisted.words.xish.domish import Element

from xmpppush.server.parser import StreamFault, StreamParser

_NO_LIMIT = 1 << 62


class ComponentParser(StreamParser):
    """
    A `StreamParser` for which a stanza against its limits is no reason to end the stream.

    On a client's stream the one who breaks a rule is the one who is disconnected. Over a component's stream
    the server passes on what any of its users sends to the component: were it the end of the stream, one of
    them could keep everybody's pushes from getting through. So what is beyond a limit is left out as it comes
    (memory stays bounded), and the stanza is handed to ``too_much`` instead. Names, which expat never
    forgets, go with a parser that is replaced by a `renewed` one.

    Args:
        too_much: Called with what was kept of such a stanza; ``None``: not even its attributes.
    """

    __slots__ = ("_broken", "_limit", "_prolog", "_skipped", "_too_much", "_whole", "_worn")

    def __init__(
        self,
        started: Callable[[Element], None],
        received: Callable[[Element], None],
        ended: Callable[[], None],
        too_much: Callable[[Element | None], None],
        max_size: int,
        namespace: str,
    ) -> None:
        self._whole = received
        self._too_much = too_much
        self._limit = max_size
        self._prolog = b""
        self._skipped = 0  # elements that are open within what is left out
        self._broken = False
        self._worn = False
        super().__init__(started, self._stanza, ended, _NO_LIMIT, namespace, True)

    @property
    def between_stanzas(self) -> bool:
        """Is all that was fed behind us, and the stream at a place where a stanza may begin?"""
        return (
            self._current is None
            and not self._skipped
            and not self._held
            and self._root is not None
            and self._fed == self._expat.CurrentByteIndex
        )

    @property
    def unread(self) -> int:
        """Bytes of a tag that is not whole yet; expat looks at all of them again with each segment."""
        return self._fed - self._expat.CurrentByteIndex if self._root is not None else 0

    @property
    def is_worn(self) -> bool:
        """Is it time for a `renewed` one?"""
        return self._worn and self.between_stanzas

    def renewed(self) -> "ComponentParser":
        """A new parser at the same place of the stream, between two stanzas; this one is closed."""
        parser = ComponentParser(
            _known, self._whole, self._ended, self._too_much, self._limit, self._namespace
        )
        parser.feed(self._prolog)
        self.close()
        return parser

    def _parse(self, data: bytes) -> None:
        if self._root is None:
            self._prolog += data  # _feed_prolog ends each piece with a '>'
        super()._parse(data)
        if self._current is not None and self._fed - self._stanza_start > self._limit:
            self._broken = True

    def _start(self, name: str, attributes: dict[Any, str]) -> None:
        if self._skipped or (self._broken and self._current is not None):
            self._skipped += 1
            return
        depth, is_header = self._depth, self._root is None
        try:
            super()._start(name, attributes)
        except StreamFault:
            if is_header:
                raise
            self._depth = depth
            self._broken = True
            self._skipped = 1

    def _end(self, name: str) -> None:
        if not self._skipped:
            super()._end(name)
            return
        self._skipped -= 1
        if not self._skipped and self._current is None:
            # It was the stanza itself, with nothing to be kept of it.
            self._broken = False
            self._stanza_start = self._expat.CurrentByteIndex
            self._check_names()
            self._too_much(None)

    def _characters(self, data: str) -> None:
        if not self._broken:
            super()._characters(data)

    def _stanza(self, stanza: Element) -> None:
        if self._broken:
            self._broken = False
            self._too_much(stanza)
        else:
            self._whole(stanza)

    def _check_names(self) -> None:
        try:
            super()._check_names()
        except StreamFault:
            self._worn = True


def _known(header: Element) -> None:
    """The header of a `ComponentParser.renewed` parser, which was dealt with long ago."""
