"""Who is connected: accounts, their resources and their sessions."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from xmpppush.interfaces import ISession

_NONE: Mapping[str, ISession] = MappingProxyType({})


class Resources:
    """
    The sessions of this process. Everything that asks who is connected asks here, so that sessions on
    other nodes can be found through the same few methods one day.
    """

    def __init__(self) -> None:
        self._accounts: dict[str, dict[str, ISession]] = {}

    def of(self, account: str) -> Mapping[str, ISession]:
        """Resource to session, empty where nobody is connected; do not keep it across turns."""
        return self._accounts.get(account, _NONE)

    def get(self, account: str, resource: str) -> ISession | None:
        return self._accounts.get(account, _NONE).get(resource)

    def add(self, account: str, resource: str, session: ISession) -> ISession | None:
        """Returns the session that had this resource before."""
        sessions = self._accounts.setdefault(account, {})
        before = sessions.get(resource)
        sessions[resource] = session
        return before

    def remove(self, account: str, resource: str, session: ISession) -> bool:
        """False where that resource belongs to another session, or to none, by now."""
        sessions = self._accounts.get(account, {})
        if sessions.get(resource) is not session:
            return False
        del sessions[resource]
        if not sessions:
            del self._accounts[account]
        return True

    def __iter__(self) -> Iterator[ISession]:
        for sessions in list(self._accounts.values()):
            yield from list(sessions.values())

    def __len__(self) -> int:
        return sum(map(len, self._accounts.values()))
