"""What subscribers and owners of a node are told, as values."""

from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen

from xmpppush.model import Item


@frozen
class Event:
    """
    A message to be sent once what it tells of is on disk (XEP-0060 sections 7.1.2 and following).

    Attributes:
        kind: ``items``, ``retract``, ``purge``, ``delete``, ``configuration``, ``subscription`` (a state
            changed) or ``authorize`` (an owner is asked to decide).
        to: Who gets it.
        type: Of the message: ``headline``, which nobody stores, or ``normal``.
        items: Those published, or with their ids those that are gone.
        payloads: With what the items say, not just their ids.
        stamp: Seconds since the epoch, where it tells of something past; else ``None``.
        config: The form of a ``configuration``; empty: none.
        jid, state: Of the subscription that changed, or waits for a decision.
    """

    kind: str
    node: str
    to: tuple[str, ...]
    type: str = "headline"
    items: tuple[Item, ...] = ()
    payloads: bool = True
    stamp: float | None = None
    config: Mapping[str, str] = MappingProxyType({})
    jid: str = ""
    state: str = ""
