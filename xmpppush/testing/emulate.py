"""
``xmpppush emulate``: FCM, APNs or a Web Push service for somebody's CI.

What they do is in `xmpppush.testing.providers`, which loads when one is started.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xmpppush.errors import PushError

if TYPE_CHECKING:
    from xmpppush.testing.providers.base import Emulator

FAULT_HELP = (
    "What goes wrong: 'WHAT key=value...', e.g. '503 times=10', 'Unregistered token=dead*',"
    " 'goaway after=500 times=1', 'silence every=100', 'delay=0.5'. May be given more than once."
)


class EmulatorError(PushError):
    """The emulator cannot start; the text is all that is said."""


def common(default_port: int) -> Callable[[Any], Any]:
    """The options that all emulators have."""
    options = (
        click.option("--port", default=default_port, show_default=True, type=click.IntRange(0, 65535)),
        click.option(
            "--control",
            type=click.IntRange(0, 65535),
            help="Port of plain HTTP: GET /received, PUT /faults, ... Default: the port after --port.",
        ),
        click.option("--interface", default="127.0.0.1", show_default=True, help="Address to listen on."),
        click.option(
            "--name", "names", multiple=True, help="Host name that clients use; goes into its certificate."
        ),
        click.option(
            "--write-credentials",
            "folder",
            required=True,
            type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
            help="Folder for the test CA and what clients authenticate with; kept for the next start.",
        ),
        click.option("--fault", "faults", multiple=True, help=FAULT_HELP),
        click.option(
            "--faults",
            "script",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="The same from a file: a JSON list of objects or texts.",
        ),
        click.option("--keep", default=10_000, show_default=True, help="Requests that /received lists."),
        click.option("--max-streams", default=100, show_default=True, help="Requests at a time, HTTP/2."),
    )

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.group()
def emulate() -> None:
    """Stand in for FCM, APNs or a Web Push service, for tests."""


@emulate.command()
@common(20197)
@click.option("--topic", default="com.example.chat", show_default=True, help="The app's bundle id.")
@click.option("--sandbox", is_flag=True, help="The development environment.")
@click.option("--first-streams", default=0, help="Requests at a time until one was accepted; Apple: 1.")
def apns(
    topic: str, sandbox: bool, first_streams: int, folder: Path, names: Sequence[str], **options: Any
) -> None:
    """Apple's push service: HTTP/2, certificate or token."""
    from xmpppush.testing.providers.apns import APNsEmulator
    from xmpppush.testing.providers.credentials import KEY_ID, TEAM_ID, keep_apns_credentials

    shared = taken_from(options, names)

    def build() -> "Emulator":
        authority = authority_in(folder, names)
        return APNsEmulator(
            authority,
            in_folder(keep_apns_credentials, folder, authority, topic),
            **shared,
            first_streams=first_streams,
            sandbox=sandbox,
        )

    def snippet(emulator: "Emulator") -> list[str]:
        return [
            "[mongoosepush:apns:emulated]",
            f"endpoint = {emulator.endpoint}",
            f"ca_file = {folder / 'ca.pem'}",
            f"mode = {'dev' if sandbox else 'prod'}",
            f"key_id = {KEY_ID}",
            f"team_id = {TEAM_ID}",
            f"p8_file = {folder / f'AuthKey_{KEY_ID}.p8'}",
            f"default_topic = {topic}",
            "; or, in place of key_id, team_id and p8_file:",
            f"; certfile = {folder / 'apns_cert.pem'}",
            f"; keyfile = {folder / 'apns_key.pem'}",
        ]

    run(build, snippet, **options)


@emulate.command()
@common(20228)
@click.option("--project", default="xmpppush-emulator", show_default=True, help="The Firebase project's id.")
@click.option("--expires-in", default=3599, show_default=True, help="Seconds that an access token lasts.")
def fcm(project: str, expires_in: int, folder: Path, names: Sequence[str], **options: Any) -> None:
    """Firebase Cloud Messaging, HTTP v1, with its OAuth token endpoint."""
    from xmpppush.testing.providers.credentials import keep_fcm_credentials, write_all
    from xmpppush.testing.providers.fcm import FCMEmulator

    shared = taken_from(options, names)

    def build() -> "Emulator":
        return FCMEmulator(
            authority_in(folder, names),
            in_folder(keep_fcm_credentials, folder, project),
            **shared,
            expires_in=expires_in,
        )

    def snippet(emulator: Any) -> list[str]:
        in_folder(write_all, folder, {"service-account.json": emulator.service_account()})
        return [
            "[mongoosepush:fcm:emulated]",
            f"endpoint = {emulator.endpoint}",
            f"ca_file = {folder / 'ca.pem'}",
            f"appfile = {folder / 'service-account.json'}",
        ]

    run(build, snippet, **options)


@emulate.command()
@common(20030)
@click.option("--subscriptions", default=1, show_default=True, help="How many browsers there are at first.")
def webpush(subscriptions: int, folder: Path, names: Sequence[str], **options: Any) -> None:
    """A Web Push service with subscriptions that can read their messages."""
    from xmpppush.testing.providers.credentials import keep_vapid_key, write_all
    from xmpppush.testing.providers.webpush import WebPushEmulator

    shared = taken_from(options, names)

    def build() -> "Emulator":
        in_folder(keep_vapid_key, folder)
        return WebPushEmulator(authority_in(folder, names), **shared)

    def snippet(emulator: Any) -> list[str]:
        made = {
            f"subscription-{number}.json": emulator.subscribe(f"browser-{number}").json.encode()
            for number in range(1, subscriptions + 1)
        }
        in_folder(write_all, folder, made)
        return [
            "[mongoosepush:webpush:emulated]",
            f"vapid_key_file = {folder / 'vapid.pem'}",
            "subject = mailto:ops@example.org",
            f"allowed_hosts = {emulator.endpoint}",
            f"ca_file = {folder / 'ca.pem'}",
            *(f"; a device id: the content of {folder / name}" for name in made),
        ]

    run(build, snippet, **options)


def taken_from(options: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """What every emulator is made with; `run` gets the rest."""
    return {
        "capacity": options.pop("keep"),
        "max_streams": options.pop("max_streams"),
        "host": next(iter(names), ""),
    }


def run(
    build: Callable[[], "Emulator"],
    snippet: Callable[[Any], Sequence[str]],
    port: int,
    control: int | None,
    interface: str,
    faults: Sequence[str],
    script: Path | None,
) -> None:
    """Serve until interrupted."""
    from twisted.internet import reactor as installed
    from twisted.internet.error import CannotListenError

    from xmpppush.listening import explain_listen_error
    from xmpppush.testing.providers.control import ControlPort
    from xmpppush.testing.providers.faults import BadFault, read_faults

    reactor: Any = installed
    emulator = build()
    try:
        emulator.faults.add(*faults, *(() if script is None else read_faults(script)))
    except BadFault as error:
        raise EmulatorError(f"fault: {error}") from None
    controller = ControlPort(emulator)
    try:
        emulator.listen(reactor, port, interface)
        wanted = (port + 1 if 0 < port < 65535 else 0) if control is None else control
        controller.listen(reactor, wanted, interface)
    except CannotListenError as error:
        raise EmulatorError(explain_listen_error(f"{error.interface}:{error.port}", error)) from None
    lines = snippet(emulator)
    click.echo(
        f"; {emulator.service} emulator listening on {emulator.endpoint},"
        f" control on http://{interface}:{controller.port}"
    )
    for line in lines:
        click.echo(line)
    click.echo()  # whoever reads this in a script knows that it is all
    reactor.run()


def authority_in(folder: Path, names: Sequence[str]) -> Any:
    from xmpppush.certificates import LOOPBACK_NAMES
    from xmpppush.testing.providers.credentials import keep_authority

    return in_folder(keep_authority, folder, (*names, *LOOPBACK_NAMES))


def in_folder(do: Callable[..., Any], *arguments: Any) -> Any:
    """Do it; what does not work with the folder is one line."""
    try:
        return do(*arguments)
    except OSError as error:
        raise EmulatorError(f"{error.filename}: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, KeyError, TypeError):
        raise EmulatorError("--write-credentials: a file there is damaged; take another folder") from None
