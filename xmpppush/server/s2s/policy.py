"""Whom we talk to, and what we ask of them: ``[s2s]``, decided."""

from collections.abc import Collection

from attrs import frozen

from xmpppush.config.sections import S2SSection


@frozen
class Policy:
    """
    Attributes:
        allow: Domains, with all below them, that we talk to; empty: everybody.
        block: The same for those that we do not talk to; goes before ``allow``.
        tls: ``required`` or ``optional``, for streams that we open.
        verify: Does the other side need a valid certificate, in both directions?
    """

    allow: frozenset[str] = frozenset()
    block: frozenset[str] = frozenset()
    tls: str = "required"
    verify: bool = False

    def permits(self, domain: str) -> bool:
        """Do we talk to that domain at all?"""
        if self.block and _is_below(domain, self.block):
            return False
        return not self.allow or _is_below(domain, self.allow)


def policy_of(section: S2SSection) -> Policy:
    return Policy(frozenset(section.allow), frozenset(section.block), section.tls, section.verify)


def _is_below(domain: str, known: Collection[str]) -> bool:
    while domain:
        if domain in known:
            return True
        domain = domain.partition(".")[2]
    return False
