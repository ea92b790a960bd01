"""
The ways in which clients register, as tables: their commands, their forms, their answers.

The bytes are those of the servers that the clients were written for: p2 (Conversations),
mod_push_appserver (ChatSecure, Monal) and Tigase (Siskin). The fourth way, fpush's, needs no command: there
the device token is the node, and a publish option names the app.
"""

from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha1, sha256
from hmac import compare_digest

from attrs import field, frozen

from xmpppush.config.sections import AppSection
from xmpppush.errors import BadStanza, Forbidden, NodeNotFound, NotAcceptable, PushError
from xmpppush.jids import bare_of
from xmpppush.model import Device, Notification, PushSummary
from xmpppush.xep.commands import Ask
from xmpppush.xep.dataforms import Form

P2, APPSERVER, TIGASE, FPUSH = "p2", "appserver", "tigase", "fpush"

ANY = "*"  # in a list of names: requests that name none, or one that nobody has
MAX_ID = 1024  # characters of a device's id or an app's name
MAX_TOKEN = 4000  # of more than 4050 a MongoosePush's connection to APNs breaks
NODE_LENGTH = 22
_APPSERVER_FORM = "https://github.com/tmolitor-stud-tu/mod_push_appserver/#"
_UNKNOWN_DATA = "Unknown command data"


@frozen
class Command:
    """
    An ad-hoc command of one way.

    Attributes:
        node: Its name in XEP-0050.
        service: That it is for, ``""`` where the form says.
        registers: It does; or it unregisters.
    """

    node: str
    way: str
    registers: bool
    title: str
    service: str = ""

    @property
    def form_type(self) -> str:
        """FORM_TYPE of its form, ``""`` where it has none."""
        return f"{_APPSERVER_FORM}{self.node}" if self.way == APPSERVER else ""

    def fields(self) -> Iterator[Ask]:
        """What it asks for."""
        if self.way == P2:
            if self.registers:
                yield Ask("token", "Device token")
            yield Ask("device-id", "A lasting id of the device")
            yield Ask("muc", "Room that publishes", required=False, type="jid-single")
        elif self.way == APPSERVER:
            yield Ask("type", "Push service", type="list-single", options=("apns", "fcm"))
            yield Ask("node", "A lasting id of the device")
            if self.registers:
                yield Ask("token", "Device token")
        else:
            yield Ask("provider", "Id of the push provider")
            yield Ask("device-token", "Device token")
            if self.registers:
                yield Ask("device-second-token", "Token for calls", required=False)


@frozen
class Asked:
    """
    What somebody asks a command for.

    Attributes:
        service: ``fcm``, ``apns``, ...; ``""`` where the name says it (Tigase).
        name: Package name or provider, ``""``: none.
        device: What the client knows the device by.
        token: ``""`` where a device is unregistered.
        publisher: Bare JID of the room that publishes, ``""``: the owner's server does.
    """

    service: str
    name: str
    device: str = field(repr=False)
    token: str = field(repr=False)
    publisher: str = ""


def commands_of(apps: Iterable[AppSection]) -> dict[str, Command]:
    """The commands by which devices can register for one of these, by node."""
    apps = tuple(apps)
    found: list[Command] = []
    for service in sorted({app.service for app in apps if app.p2}):
        title = f"{service.upper()} push notifications"
        found.append(Command(f"register-push-{service}", P2, True, f"Register for {title}", service))
        found.append(Command(f"unregister-push-{service}", P2, False, f"Unregister from {title}", service))
    if any(app.appserver for app in apps):
        found.append(Command("v1-register-push", APPSERVER, True, "Register for push notifications"))
        found.append(Command("v1-unregister-push", APPSERVER, False, "Unregister from push notifications"))
    if any(app.tigase for app in apps):
        found.append(Command("register-device", TIGASE, True, "Register device"))
        found.append(Command("unregister-device", TIGASE, False, "Unregister device"))
    return {command.node: command for command in found}


def read(command: Command, form: Form) -> Asked:
    """
    What the form of a command says.

    Raises:
        BadStanza: Something is missing or too long; mod_push_appserver's way is `NotAcceptable`.
    """
    values = form.first_values()
    if command.way == APPSERVER:
        return _read_appserver(command, form, values)
    if command.way == P2:
        device = values.get("device-id") or values.get("android-id") or ""
        asked = Asked(
            command.service,
            values.get("package", ""),
            device,
            values.get("token", "") if command.registers else "",
            bare_of(values["muc"]) if values.get("muc") else "",
        )
        missing = not device or (command.registers and not asked.token)
    else:
        token = values.get("device-token", "")
        asked = Asked("", values.get("provider", ""), token, token if command.registers else "")
        missing = not token or not asked.name
    if missing:
        raise BadStanza("a field is missing")
    if _is_too_long(asked):
        raise BadStanza("a field is too long")
    return asked


def _read_appserver(command: Command, form: Form, values: Mapping[str, str]) -> Asked:
    token = values.get("token", "") if command.registers else ""
    asked = Asked(values.get("type", ""), "", values.get("node", ""), token)
    if (
        form.form_type not in (None, command.form_type)
        or not asked.service
        or not asked.device
        or (command.registers and not token)
        or _is_too_long(asked)
    ):
        raise NotAcceptable(_UNKNOWN_DATA)
    return asked


def _is_too_long(asked: Asked) -> bool:
    # Tigase's device is its token.
    limit = MAX_ID if asked.device != asked.token else MAX_TOKEN
    return len(asked.device) > limit or len(asked.name) > MAX_ID or len(asked.token) > MAX_TOKEN


def app_for(apps: Iterable[AppSection], way: str, service: str, name: str) -> AppSection | None:
    """
    The app that somebody means.

    Args:
        service: ``""``: the name alone says it.
    """
    fitting = [app for app in apps if service in ("", app.service)]
    for wanted in (name, ANY) if name else (ANY,):
        for app in fitting:
            if wanted in names_of(app, way):
                return app
    return None


def names_of(app: AppSection, way: str) -> tuple[str, ...]:
    """The names by which a way knows an app, none where it is not registered for in this way."""
    if way == APPSERVER:
        return (ANY,) if app.appserver else ()
    return {P2: app.p2, TIGASE: app.tigase, FPUSH: app.push_module}[way]


def no_such_app(way: str) -> PushError:
    """What a way answers where no app fits."""
    return NotAcceptable(_UNKNOWN_DATA) if way == APPSERVER else NodeNotFound("no such push service")


def no_token(way: str) -> PushError:
    """What a way answers where no push service can be asked for such a token."""
    return NotAcceptable(_UNKNOWN_DATA) if way == APPSERVER else BadStanza("the token is none")


def device_key(app: str, way: str, owner: str, asked: Asked) -> str:
    """Recognises a device that registers again; says nothing of who and what it is."""
    return _hash(app, way, owner, asked.device, asked.publisher)


def hash_of(jid: str) -> str:
    """What is kept of a bare JID that is only compared."""
    return _hash("jid", jid)


def _hash(*parts: str) -> str:
    return sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def data_for(way: str, service: str, owner: str, asked: Asked) -> dict[str, str]:
    """
    What apps of this way want to find in a notification: which account it is for.

    Conversations compares a hash that p2 makes; Siskin needs the JID, to find the key for what is encrypted.
    """
    if way == TIGASE:
        return {"account": owner}
    if way == P2 and service == "fcm":
        data = {"account": _fingerprint(owner, asked.device)}
        if asked.publisher:
            data["channel"] = _fingerprint(asked.publisher, asked.device)
        return data
    return {}


def _fingerprint(jid: str, device: str) -> str:
    digest = sha1(f"{jid}\0{device}".encode("utf-8", "surrogatepass"), usedforsecurity=False)
    return digest.hexdigest()


def node_of(octets: bytes) -> str:
    """A node's name of 16 random octets: letters, digits, ``-`` and ``_``."""
    return urlsafe_b64encode(octets).decode().rstrip("=")


def secret_of(octets: bytes) -> str:
    """A secret of 18 random octets, as p2's look."""
    return b64encode(octets).decode()


def outcome(
    command: Command, host: str, asked: Asked, device: Device | None
) -> Iterator[tuple[str, str, str]]:
    """Fields of the answer, as name, type and value."""
    single, jid = ("", "") if command.way == P2 else ("text-single", "jid-single")
    if command.way == TIGASE:
        if device is not None:
            yield "node", single, device.node
        return
    if device is not None:
        yield "jid", jid, host
        yield "node", single, device.node
        yield "secret", single, device.secret
    elif command.way == APPSERVER:
        yield "jid", jid, host
        yield "node", single, asked.device


def status_of(command: Command) -> str:
    """``completed`` in XEP-0050; what mod_push_appserver says instead its clients know."""
    return "complete" if command.way == APPSERVER else "completed"


def form_kind_of(command: Command) -> str:
    """Type of the answer's form, as each of them has it."""
    return "result" if command.way == TIGASE else "form"


def owner_of(device: Device) -> str:
    """Bare JID of who registered it and publishes to it, ``""`` where that is not known."""
    if device.publisher != device.owner:  # a room's server has no registration to drop
        return ""
    return device.account or (device.data.get("account", "") if device.way == TIGASE else "")


def check_publisher(device: Device, sender: str, secret: str | None) -> None:
    """
    May this bare JID or domain publish to the device?

    Raises:
        NodeNotFound: For this sender there is no such node; or, in mod_push_appserver's way, the secret is
            wrong.
        Forbidden: The secret is wrong.
    """
    _, at, domain = sender.rpartition("@")
    if domain != device.domain or (at and not compare_digest(hash_of(sender), device.publisher)):
        raise NodeNotFound("no such node")
    if not device.secret:
        return
    if secret is None or not compare_digest(secret.encode(), device.secret.encode()):
        raise NodeNotFound("no such node") if device.way == APPSERVER else Forbidden("wrong secret")


def content_of(app: AppSection, way: str) -> str:
    """
    How much of a notification the push service gets: ``full``, ``generic`` or ``silent``.

    Apps of p2, mod_push_appserver and fpush wake up, connect and fetch; Siskin shows what it gets.
    """
    if app.content != "auto":
        return app.content
    if way == TIGASE:
        return "full"
    return "silent" if app.service == "fcm" else "generic"


def options_of(app: AppSection, way: str, token: str) -> dict[str, str]:
    """The publish options of every push to a device, which stand in for whatever is published with it."""
    options = {"service": app.service, "device_id": token, "mode": app.mode, "topic": app.topic}
    options |= {"priority": app.priority, "sound": app.sound, "click_action": app.click_action}
    if app.time_to_live:
        options["time_to_live"] = str(int(app.time_to_live))
    content = content_of(app, way)
    if content == "silent":
        options["silent"] = "true"
        if app.service == "fcm":  # anything less does not wake a phone that sleeps
            options["priority"] = app.priority or "high"
    elif app.service == "apns":
        options["mutable_content"] = "true"  # the app's extension may put in what is missing
    return {name: value for name, value in options.items() if value}


def shown(notification: Notification, content: str) -> Notification:
    """What of a notification leaves for the push service."""
    if content == "full":
        return notification
    count = notification.summary.message_count if content == "generic" else None
    extra = {"priority": "high"} if notification.extra.get("priority") == "high" else {}
    return Notification(PushSummary(message_count=count), extra, notification.extras)
