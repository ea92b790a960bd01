"""Devices that registered for an app: who may, what they are given, and what becomes of a publish to one."""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from random import Random, SystemRandom
from types import MappingProxyType

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from xmpppush.apps.limits import Windows
from xmpppush.apps.rules import (
    ANY,
    FPUSH,
    MAX_TOKEN,
    NODE_LENGTH,
    TIGASE,
    Asked,
    Command,
    app_for,
    check_publisher,
    commands_of,
    content_of,
    data_for,
    device_key,
    hash_of,
    no_such_app,
    no_token,
    node_of,
    options_of,
    owner_of,
    secret_of,
    shown,
)
from xmpppush.config.sections import AppSection
from xmpppush.errors import BadStanza, Forbidden, LimitReached, NodeNotFound, PushError, TryLater
from xmpppush.interfaces import IAppDevices, IDeviceStore, IMessageStore, IPushService
from xmpppush.jids import JID
from xmpppush.model import Delivery, Device, Notification, Publish, Route

MINUTE = 60.0
DOMAIN_WINDOW = 10.0  # seconds: a burst of ten times what is allowed a second
REMEMBERED = 65536
_NOTHING = Notification()
MODULE = "pushModule"  # fpush's publish option
# A token that is the node of a publish without any option has at least as many characters at FCM and APNs.
LEAST_TOKEN = 64
# Whose options are remembered. As nodes tokens are whatever strangers write, of any length.
USUAL_TOKEN = 512


@implementer(IAppDevices)
class Apps:
    """
    The apps of this server and their devices.

    Args:
        push_service: Prepares the deliveries.
        domains: Those served here: their publishes are counted by nobody.
    """

    def __init__(
        self,
        sections: Sequence[AppSection],
        devices: IDeviceStore,
        push_service: IPushService,
        clock: IReactorTime,
        domains: Collection[str] = (),
        random: Random | None = None,
        messages: IMessageStore | None = None,
    ) -> None:
        """
        Args:
            messages: Keeps what is sent again; ``None``: nothing is.
        """
        self._apps = {section.name: section for section in sections}
        self._devices = devices
        self._push_service = push_service
        self._clock = clock
        self._domains = frozenset(domains)
        self._random = random or SystemRandom()
        self._messages = messages
        self._registrations = Windows(MINUTE, clock)
        self._publishes = Windows(DOMAIN_WINDOW, clock)
        self._modules = any(section.push_module for section in sections)
        # The same object for the same device from push to push: the push service remembers by it.
        self._options = lru_cache(REMEMBERED)(self._options_of)
        self._routes = lru_cache(REMEMBERED)(self._route_of)

    def apps_on(self, host: str) -> list[AppSection]:
        """Those that can be registered for at a JID of ours."""
        return [app for app in self._apps.values() if not app.hosts or host in app.hosts]

    def commands_on(self, host: str) -> dict[str, Command]:
        """The ad-hoc commands of a JID of ours, by node."""
        return commands_of(self.apps_on(host))

    # Registering

    async def register(self, requester: JID, host: str, command: Command, asked: Asked) -> Device:
        """
        Register a device, or note the new token of one that is registered.

        Raises:
            Forbidden: Only people's accounts may, and of these domains alone.
            LimitReached: Too many devices, or too often.
            PushError: There is no such app: `no_such_app`.
        """
        app, owner = self._app(requester, host, command, asked)
        publisher = asked.publisher or owner
        domain = publisher.rpartition("@")[2]
        if app.domains and domain not in app.domains:
            raise Forbidden("not for this domain")
        # Counted by hash: JIDs may be long, and strangers have as many as they like.
        if not self._registrations.has_room(hash_of(f"{app.name} {owner}"), app.registrations_per_minute):
            raise LimitReached("too many registrations; wait a minute")
        now = self._clock.seconds()
        device = Device(
            host=host,
            node=node_of(self._random.randbytes(16)),
            app=app.name,
            way=command.way,
            key=device_key(app.name, command.way, owner, asked),
            owner=hash_of(owner),
            publisher=hash_of(publisher),
            domain=domain,
            token=asked.token,
            secret="" if command.way == TIGASE else secret_of(self._random.randbytes(18)),
            data=MappingProxyType(data_for(command.way, app.service, owner, asked)),
            created=now,
            renewed=now,
            account=owner if app.keep_account else "",
        )
        if self._path_to(device) is None:
            raise no_token(command.way)
        registered: Device = await self._devices.put(device, app.max_devices_per_user)
        return registered

    async def unregister(self, requester: JID, host: str, command: Command, asked: Asked) -> None:
        """
        Forget a device of one's own.

        Raises:
            NodeNotFound: One has no such device.
            PushError: There is no such app: `no_such_app`.
        """
        app, owner = self._app(requester, host, command, asked)
        if not await self._devices.remove(host, device_key(app.name, command.way, owner, asked)):
            raise NodeNotFound("no such device")

    def _app(self, requester: JID, host: str, command: Command, asked: Asked) -> tuple[AppSection, str]:
        app = app_for(self.apps_on(host), command.way, asked.service, asked.name)
        if app is None:
            raise no_such_app(command.way)
        if not requester.user or (app.domains and requester.host not in app.domains):
            raise Forbidden("not for this JID")
        return app, requester.userhost()

    # Publishing

    def accept(self, publish: Publish) -> "Delivery | Deferred[Delivery | None] | None":
        """See `IAppDevices.accept`. Once a push: no coroutine here."""
        if self._modules:
            delivery = self._by_token(publish)
            if delivery is not None:
                return delivery
        if len(publish.node) != NODE_LENGTH:
            return None
        device = self._devices.get(publish.pubsub, publish.node)
        if isinstance(device, Deferred):
            return device.addCallback(self._to_device, publish)
        return self._to_device(device, publish)

    def knows(self, host: str, node: str, options: Mapping[str, str]) -> "bool | Deferred[bool]":
        """See `IAppDevices.knows`."""
        if self._modules and (
            options.get(MODULE)
            or (
                not options
                and len(node) >= LEAST_TOKEN
                and app_for(self.apps_on(host), FPUSH, "", ANY) is not None
            )
        ):
            return True
        if len(node) != NODE_LENGTH:
            return False
        device = self._devices.get(host, node)
        if isinstance(device, Deferred):
            return device.addCallback(lambda found: found is not None)
        return device is not None

    def _to_device(self, device: Device | None, publish: Publish) -> Delivery | None:
        if device is None:
            return None
        check_publisher(device, publish.sender, publish.options.get("secret"))
        app = self._apps.get(device.app)
        if app is None:
            # The operator took it out of the configuration and may put it back.
            raise TryLater(f"app {device.app} is not configured")
        if app.domains and device.domain not in app.domains:
            raise Forbidden("not for this domain")
        self._check_rate(app, publish)
        return self._prepare(app, device, publish)

    def _by_token(self, publish: Publish) -> Delivery | None:
        """fpush's way: the node is the device token."""
        options = publish.options
        module = options.get(MODULE)
        if not module and (options or len(publish.node) < LEAST_TOKEN):
            return None
        app = app_for(self.apps_on(publish.pubsub), FPUSH, "", module or ANY)
        if app is None:
            if not module:
                return None
            raise BadStanza("no such push module")
        if len(publish.node) > MAX_TOKEN:
            raise NodeNotFound("no device has such a token")
        if app.domains and publish.sender.rpartition("@")[2] not in app.domains:
            raise Forbidden("not for this domain")
        self._check_rate(app, publish)
        return self._deliver(app, FPUSH, publish.node, self._routes(app.name, ()), publish)

    def _check_rate(self, app: AppSection, publish: Publish) -> None:
        if app.domain_rate and not publish.account:
            domain = publish.sender.rpartition("@")[2]
            if domain in self._domains:
                return
            limit = int(app.domain_rate * DOMAIN_WINDOW)
            if not self._publishes.has_room(f"{app.name} {domain}", limit):
                raise TryLater(f"more than {app.domain_rate} a second of {domain}")

    def _prepare(self, app: AppSection, device: Device, publish: Publish) -> Delivery:
        route = self._routes(app.name, tuple(device.data.items()))
        return self._deliver(app, device.way, device.token, route, publish)

    def _deliver(self, app: AppSection, way: str, token: str, route: Route, publish: Publish) -> Delivery:
        options_of_token = self._options if len(token) <= USUAL_TOKEN else self._options_of
        notification = shown(publish.notification, content_of(app, way))
        delivery: Delivery = self._push_service.prepare(
            Publish(
                publish.sender,
                publish.pubsub,
                publish.node,
                notification,
                options_of_token(app.name, way, token),
                publish.account,
                publish.trace,
                route,
            ),
            self._clock.seconds(),
        )
        return delivery

    def _options_of(self, app: str, way: str, token: str) -> "MappingProxyType[str, str]":
        return MappingProxyType(options_of(self._apps[app], way, token))

    def _route_of(self, app: str, data: tuple[tuple[str, str], ...]) -> Route:
        return Route(app, self._apps[app].tags, MappingProxyType(dict(data)))

    async def unregistered(self, delivery: Delivery) -> str:
        """See `IAppDevices.unregistered`."""
        if not _is_to_device(delivery):
            return ""
        device = self._devices.get(delivery.pubsub, delivery.node)
        if isinstance(device, Deferred):
            device = await device
        path = self._path_to(device) if device is not None else None
        if device is None or path is None:
            return ""
        if path != delivery.path:
            if self._messages is not None:
                again = evolve(delivery, id=0, path=path, attempts=0, next_try=0.0)
                (stored,) = await self._messages.keep(None, (again,), 0)
                self._push_service.enqueue(stored)
            return ""
        if device.renewed > delivery.created or not await self._devices.remove_same(device):
            return ""
        return owner_of(device)

    def is_renewed(self, delivery: Delivery) -> "bool | Deferred[bool]":
        """See `IAppDevices.is_renewed`."""
        if not _is_to_device(delivery):
            return False
        device = self._devices.get(delivery.pubsub, delivery.node)
        if isinstance(device, Deferred):
            return device.addCallback(self._is_newer, delivery)
        return self._is_newer(device, delivery)

    def _is_newer(self, device: Device | None, delivery: Delivery) -> bool:
        if device is None:
            return False
        return device.renewed > delivery.created or self._path_to(device) not in (None, delivery.path)

    def _path_to(self, device: Device) -> str | None:
        """Of a request for the device as it is now; ``None`` where there can be none."""
        app = self._apps.get(device.app)
        if app is None:
            return None
        try:
            return self._prepare(app, device, Publish(device.domain, device.host, device.node, _NOTHING)).path
        except PushError:
            return None


def _is_to_device(delivery: Delivery) -> bool:
    """Is it for a device that has a row, and not for a token that is the node itself?"""
    return "@" in delivery.service and len(delivery.node) == NODE_LENGTH
