"""The accounts of this server as an `IAuthenticator`."""

import os

from twisted.internet.defer import Deferred
from zope.interface import implementer

from xmpppush.interfaces import IAccountStore, IAuthenticator
from xmpppush.model import ScramKeys
from xmpppush.server.sasl import SCRAM, SCRAM_SHA_256, fits, pretended_keys


@implementer(IAuthenticator)
class AccountAuthenticator:
    """Checks against the keys in the account store; nobody can tell from the time who has an account."""

    def __init__(self, accounts: IAccountStore) -> None:
        self._accounts = accounts
        self._secret = os.urandom(32)

    def keys(self, jid: str, mechanism: str) -> "Deferred[ScramKeys | None]":
        return Deferred.fromCoroutine(self._keys(jid, mechanism))

    def check_password(self, jid: str, password: str) -> "Deferred[bool]":
        return Deferred.fromCoroutine(self._check_password(jid, password))

    async def _keys(self, jid: str, mechanism: str) -> ScramKeys | None:
        account = await self._accounts.get(jid)
        return None if account is None else account.keys.get(mechanism)

    async def _check_password(self, jid: str, password: str) -> bool:
        account = await self._accounts.get(jid)
        if account is not None:
            for mechanism in SCRAM:
                keys = account.keys.get(mechanism)
                if keys is not None:
                    return fits(password, mechanism, keys)
        fits(password, SCRAM_SHA_256, pretended_keys(self._secret, SCRAM_SHA_256, jid))
        return False
