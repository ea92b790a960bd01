"""
What the ``xmpppush`` command can ask for, one entry each in `OPERATIONS`.

An operation takes the application and plain JSON values and returns plain JSON values. In a running
server it is called through the control socket, without one by the command itself on the opened
storage: the same code both times, and the command cannot tell the difference.
"""

import base64
import binascii
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import signature
from typing import Any

from xmpppush import __version__
from xmpppush.errors import BadStanza, PushError
from xmpppush.model import Account, Registration, SandboxNotification, ScramKeys
from xmpppush.trace import Decision

_KEY_SIZES = {"SCRAM-SHA-1": 20, "SCRAM-SHA-256": 32}  # octets, RFC 5802 and RFC 7677


class NeedsServer(PushError):
    """Only a running server can do this."""


def pack_account(account: Account) -> dict[str, Any]:
    """An account as JSON; the keys are secrets, as good as the database they go to."""
    return {
        "jid": account.jid,
        "created": account.created,
        "keys": {
            mechanism: [
                keys.iterations,
                *(
                    base64.b64encode(octets).decode()
                    for octets in (keys.salt, keys.stored_key, keys.server_key)
                ),
            ]
            for mechanism, keys in account.keys.items()
        },
    }


def unpack_account(packed: Mapping[str, Any]) -> Account:
    """
    The account that `pack_account` packed.

    Raises:
        BadStanza: It is no such thing.
    """
    try:
        return Account(
            jid=str(packed["jid"]),
            keys={str(name): _unpack_keys(name, *values) for name, values in packed["keys"].items()},
            created=float(packed["created"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error):
        # The cause would quote the keys.
        raise BadStanza("not an account") from None


def _unpack_keys(mechanism: str, iterations: int, salt: str, stored_key: str, server_key: str) -> ScramKeys:
    octets = [base64.b64decode(text, validate=True) for text in (salt, stored_key, server_key)]
    size = _KEY_SIZES[mechanism]
    if not octets[0] or any(len(key) != size for key in octets[1:]):
        raise ValueError("keys of the wrong size")
    return ScramKeys(octets[0], int(iterations), octets[1], octets[2])


async def ping(_application: Any) -> str:
    return "pong"


async def status(application: Any) -> dict[str, Any]:
    """Version, process, the addresses that are listened on, by the listener's name, and who is attached."""
    attached = getattr(application, "attached", None)
    return {
        "version": __version__,
        "pid": os.getpid(),
        "addresses": {name: list(address) for name, address in application.addresses.items()},
        "components": dict(attached.addresses) if attached is not None else {},
    }


async def add_accounts(application: Any, accounts: Sequence[Mapping[str, Any]]) -> int:
    """All of them or none; how many."""
    await application.storage.accounts.add([unpack_account(account) for account in accounts])
    return len(accounts)


async def replace_account(application: Any, account: Mapping[str, Any]) -> bool:
    """False where there is no such account. Who is logged in stays so."""
    replaced: bool = await application.storage.accounts.replace(unpack_account(account))
    return replaced


async def remove_account(application: Any, jid: str) -> bool:
    """
    False where there is no such account.

    Once its rows are gone its sessions are closed, and nothing more is sent to its devices.
    """
    removed: bool = await application.storage.accounts.remove(jid)
    close_sessions = getattr(application, "close_sessions", None)
    if close_sessions is None:  # no server
        return removed
    if removed:
        # RFC 6120 section 4.9.3.12: the stream may not be used any longer.
        close_sessions(jid, "not-authorized", "The account was removed.")
    application.forget_account(jid)
    # What came for it, or what it enabled, while its rows were going: the JID's next owner inherits
    # nothing.
    await application.storage.accounts.remove(jid)
    return removed


async def list_accounts(application: Any) -> list[str]:
    return list(await application.storage.accounts.list())


async def list_registrations(application: Any, account: str | None = None) -> list[dict[str, Any]]:
    """All, or of one account; device tokens in full, no other publish options."""
    return [
        pack_registration(registration)
        for registration in await application.storage.registrations.list(account)
    ]


def pack_registration(registration: Registration) -> dict[str, Any]:
    options = registration.options
    return {
        "account": registration.account,
        "resource": registration.resource,
        "pubsub": registration.pubsub,
        "node": registration.node,
        "service": options.get("service", ""),
        "device_id": options.get("device_id") or options.get("device", ""),
        "created": registration.created,
        "errors": registration.errors,
        "state": registration.state,
        "reason": registration.reason,
        "next_try": registration.next_try,
        "missed": registration.missed,
    }


async def disable(application: Any, account: str, pubsub: str | None = None, node: str | None = None) -> int:
    """Forget registrations, as the client's own ``<disable/>`` would; how many there were."""
    registrations = application.storage.registrations
    if pubsub is None:
        hosts = {registration.pubsub for registration in await registrations.list(account)}
    else:
        hosts = {pubsub}
    count = sum([await registrations.remove(account, host, node) for host in sorted(hosts)])
    if count:
        trace = application.trace
        trace.note(trace.begin(), account, node or "", Decision.REMOVED, "operator")
    return count


async def send_test(application: Any, account: str, body: str | None = None) -> list[tuple[str, bool]]:
    """
    Send a test notification to every device of the account, as a message would.

    Returns:
        For each device a line, with what became of it, and whether the push service took it.

    Raises:
        PushError: The server has no ``[mod_push]``.
    """
    if application.push is None:
        raise PushError("[mod_push] is off in this server")
    return list(await application.push.test(account, body))


async def trace_pushes(
    application: Any, account: str | None = None, id: str | None = None, stories: int = 100
) -> dict[str, Any]:
    """
    What was noted about pushes: the last ``stories`` of an account, or the one with this id.

    Returns:
        ``notes``, with the fields of a `TraceNote` each, by time; ``registrations``, how many the account
        has now; ``exists``, whether there is such an account; ``keep``, for how many seconds notes are
        kept, 0: there are none; ``trouble``, why nothing is sent at present.
    """
    await application.trace.flush()
    storage, section = application.storage, application.config.trace
    notes = await (storage.traces.of(account, stories) if id is None else storage.traces.story(id))
    if account is None and notes:
        account = notes[0].account
    return {
        "notes": [[*note[:-1], dict(note.fields)] for note in notes],
        "registrations": len(await storage.registrations.list(account)) if account is not None else 0,
        "exists": account is not None and await storage.accounts.get(account) is not None,
        "keep": section.keep if section.max_notes else 0,
        "trouble": trouble_of(application),
    }


def trouble_of(application: Any) -> str | None:
    """Why no push gets through, as far as it is known."""
    bridge = getattr(application, "bridge", None)
    trouble: str | None = getattr(application if bridge is None else bridge, "trouble", None)
    return trouble


async def list_sandbox(application: Any) -> list[dict[str, Any]]:
    """What phones would have got, oldest first."""
    if application.sandbox is None:
        raise PushError("[mongoosepush:sandbox] is off in this server")
    return [pack_sandbox(notification) for notification in application.sandbox.notifications]


def pack_sandbox(notification: SandboxNotification) -> dict[str, Any]:
    return {
        "service": notification.service,
        "device_id": notification.device_id,
        "mode": notification.mode,
        "content": dict(notification.content),
        "received": notification.received,
    }


Operation = Callable[..., Awaitable[Any]]

OPERATIONS: Mapping[str, Operation] = {
    "ping": ping,
    "status": status,
    "accounts.add": add_accounts,
    "accounts.replace": replace_account,
    "accounts.remove": remove_account,
    "accounts.list": list_accounts,
    "push.list": list_registrations,
    "push.disable": disable,
    "push.test": send_test,
    "push.trace": trace_pushes,
    "sandbox.list": list_sandbox,
}

ON_STORAGE = frozenset(name for name in OPERATIONS if name.startswith("accounts.")) | {
    "push.list",
    "push.disable",
    "push.trace",
}
"""Operations that need the storage alone: without a server the command does them itself."""


async def perform(application: Any, name: object, arguments: object) -> Any:
    """
    Do one operation.

    Raises:
        BadStanza: There is no such operation, or it takes other arguments.
        PushError: What the operation itself has to say.
    """
    operation = OPERATIONS.get(name) if isinstance(name, str) else None
    if operation is None:
        raise BadStanza("no such operation")
    if not isinstance(arguments, dict):
        raise BadStanza("arguments are no object")
    try:
        signature(operation).bind(application, **arguments)
    except TypeError:
        raise BadStanza(f"{name} takes other arguments") from None
    return await operation(application, **arguments)
