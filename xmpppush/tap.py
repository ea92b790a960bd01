"""
Where the parts meet: ``twistd xmpppush``.

This is the only module that knows all of them; `Application.assemble` reads as the architecture. Nothing
is opened before twistd has forked. Then storage, certificates and ports are opened in this order, and a
problem with any of them is one line and exit code 1.
"""

import atexit
import gc
import os
import random
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from xmpppush import __version__
from xmpppush.admin.health import Check, certificate_checks
from xmpppush.admin.metrics import Figures
from xmpppush.admin.site import AdminFactory, AdminResource
from xmpppush.apps.handler import handlers_for
from xmpppush.apps.limits import RateLimited
from xmpppush.apps.service import Apps
from xmpppush.certificates import CertificateStore, write_private
from xmpppush.clock import ClockWatch, WallClock, keep_steady
from xmpppush.config.sections import EMBEDDED, BridgeSection, Config, ListenSection, MongoosePushSection
from xmpppush.control import ControlServer, call, claim, is_claimed
from xmpppush.errors import ConfigError, PushError
from xmpppush.http_connections import HTTPPool
from xmpppush.interfaces import IPubSub, IPushService, ITrace
from xmpppush.listening import explain_listen_error, parse_server_endpoint, written
from xmpppush.metrics import Traffic
from xmpppush.mod_pubsub.handler import pubsub_components
from xmpppush.mod_pubsub.nodetypes import node_types_of
from xmpppush.mod_pubsub.service import PubSub
from xmpppush.mod_push.handler import PushHandler
from xmpppush.mod_push.plugins import chain_of
from xmpppush.mod_push.privacy import Privacy
from xmpppush.mod_push.publisher import Publisher
from xmpppush.mod_push.remote import NoPushService, RemoteAppServers
from xmpppush.mod_push_service_mongoosepush.payload import SERVICES
from xmpppush.mod_push_service_mongoosepush.service import MongoosePushBridge
from xmpppush.model import REMOTE
from xmpppush.mongoosepush.embedded import EmbeddedPool
from xmpppush.mongoosepush.pools import make_pools
from xmpppush.mongoosepush.sandbox import Sandbox
from xmpppush.mongoosepush.service import MongoosePush
from xmpppush.notify import READY, STOPPING, notify
from xmpppush.options import Options, refuse
from xmpppush.server.authenticator import AccountAuthenticator
from xmpppush.server.c2s import C2SFactory, throttles_for
from xmpppush.server.component import ComponentLink, EarlyAttachment
from xmpppush.server.components import AttachedComponents, ComponentFactory
from xmpppush.server.handlers import DomainHandlers, add_server_handlers
from xmpppush.server.host import XMPPServer
from xmpppush.server.requests import Requests
from xmpppush.server.resources import Resources
from xmpppush.server.router import Router
from xmpppush.server.s2s.dialback import DialbackKeys
from xmpppush.server.s2s.federation import Federation
from xmpppush.server.s2s.incoming import S2SFactory, ServerSide
from xmpppush.server.s2s.policy import policy_of
from xmpppush.server.s2s.targets import Targets, make_resolver
from xmpppush.server.s2s.tls import S2STLS
from xmpppush.server.throttle import network_of
from xmpppush.storage import open_storage
from xmpppush.trace import NO_TRACE, Trace

TAKE_OVER_TIMEOUT = 60.0  # seconds for the other server to stop

__all__ = ["Application", "Options", "makeService"]


class Listener(Service):
    """A ``[listen:NAME]``: its port and its connections."""

    _log = Logger()

    def __init__(
        self,
        section: ListenSection,
        factory: C2SFactory | S2SFactory | ComponentFactory | AdminFactory,
        certificates: CertificateStore,
        reactor: Any,
        options: IOpenSSLServerConnectionCreator | None = None,
    ) -> None:
        """
        Args:
            factory: Its ``close_all`` ends all connections and fires when they are gone.
            options: For direct TLS; ``None``: by the name that the client asks for.
        """
        self.setName(f"listen:{section.name}")
        self._section = section
        self._factory = factory
        self._certificates = certificates
        self._reactor = reactor
        self._options = options
        self._port: Any = None

    def startService(self) -> None:
        section = self._section
        endpoint, direct = parse_server_endpoint(self._reactor, section.endpoint)
        factory: Any = self._factory
        if direct or section.tls == "direct":
            factory = TLSMemoryBIOFactory(self._options or direct_options(self._certificates), False, factory)
            factory.noisy = False
        problems: list[Any] = []
        endpoint.listen(factory).addCallbacks(self._listening, lambda failure: problems.append(failure.value))
        for problem in problems:
            raise ConfigError([f"[{self.name}] {explain_listen_error(section.endpoint, problem)}"])
        super().startService()

    def _listening(self, port: Any) -> None:
        self._port = port
        self._log.info(
            "[{name}] listens on {address}, tls = {tls}",
            name=self.name,
            address=written(port.getHost()),
            tls=self._section.tls,
        )

    @property
    def address(self) -> tuple[str, int] | None:
        host = self._port.getHost()
        return (host.host, host.port) if hasattr(host, "port") else None

    @property
    def bound(self) -> bool:
        """Does it take connections?"""
        return self._port is not None and bool(getattr(self._port, "connected", True))

    def stopService(self) -> "Deferred[None]":
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
        await self._factory.close_all()


class Application(MultiService):
    """
    The whole server.

    Attributes:
        storage: The stores.
        trace: Where the parts note what becomes of each push.
        push: mod_push's publisher, ``None`` without ``[mod_push]``.
        bridge: What sends to the push service, ``None`` without ``[mod_push_service_mongoosepush]``.
        apps: The apps that devices register for, ``None`` without ``[app:NAME]``.
        push_service: MongoosePush's API, ``None`` without ``[mongoosepush]``.
        sandbox: The sandbox provider, ``None`` without ``[mongoosepush:sandbox]``.
        addresses: Name of a listener to the address it is bound to.
        components: The links to other XMPP servers, one for each ``[component]``.
        federation: Streams with other servers, ``None`` without a listener of type s2s.
        attached: The components of others, for which there is a ``[listen:NAME]``.
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        reactor: Any,
        refuse: Callable[[Sequence[str]], NoReturn] = refuse,
        take_over: bool = False,
    ) -> None:
        """
        Args:
            refuse: Told, a line each, why it does not start; ends the process.
            take_over: Stop the server that runs with this configuration first, and leave no gap where the
                XMPP server of a component allows that.
        """
        super().__init__()
        self.config = config
        self._refuse = refuse
        self._take_over = take_over
        self._early: dict[str, EarlyAttachment] = {}
        self._is_ready = False
        self.trace: ITrace = NO_TRACE
        self.push: Publisher | None = None
        self.bridge: MongoosePushBridge | None = None
        self.apps: Apps | None = None
        self.push_service: MongoosePush | None = None
        self.sandbox: Sandbox | None = None
        self.addresses: dict[str, tuple[str, int]] = {}
        self._reactor = reactor
        self._wall = WallClock(reactor)
        self._resources = Resources()
        self._traffic = Traffic()
        self._pools: dict[str, HTTPPool | EmbeddedPool] = {}
        self.components: list[ComponentLink] = []
        self._app_server: PubSub | None = None
        self._remote: RemoteAppServers | None = None
        self._queue: MongoosePushBridge | None = None
        self.federation: Federation | None = None
        self._servers: ServerSide | None = None

    def assemble(self) -> None:
        """Make every part and give it what it uses; they start in the order of `addService` below."""
        config, reactor = self.config, self._reactor
        server = config.server
        claimed = claim(server.data_dir)
        certificates = CertificateStore(
            server.data_dir, config.tls, config.tls_domains, self._wall, server.domains
        )
        if any(pool.ca_file == certificates.ca_path for pool in config.http_connections.values()):
            certificates.ensure_authority()

        self._add(ClockWatch(reactor, self._wall))
        self.storage = open_storage(config.storage, server.data_dir, reactor)
        self._add(self.storage)
        if config.trace.max_notes:
            trace = Trace(self.storage.traces, self._wall, config.trace.keep, config.trace.max_notes)
            self._add(trace)
            self.trace = trace
        if config.mongoosepush is not None:
            if config.mongoosepush.sandbox is not None:
                self.sandbox = Sandbox(config.mongoosepush.sandbox, reactor)
            pools = make_pools(config.mongoosepush, reactor, now=self._wall.seconds)
            self._add(pools)
            providers = [pools, self.sandbox] if self.sandbox is not None else [pools]
            self.push_service = MongoosePush(config.mongoosepush, providers, certificates, reactor, reactor)
            self._add(self.push_service)

        router = self._router = Router()
        self._requests = Requests(router, reactor, random.SystemRandom().randbytes)
        self.attached = AttachedComponents(router, reactor, self._requests.gone, self._is_back)
        if self._publishes_elsewhere:
            self._remote = RemoteAppServers(self._requests.ask, self._is_elsewhere, self._wall)
        bridge = self._limited(self._bridge())
        pubsub = self._pubsub(router, bridge)
        self._xmpp_server(router, pubsub, bridge, certificates)
        self._component_listeners(certificates)
        self._s2s(router, certificates)
        self._components(router, pubsub)
        self._add(ControlServer(self, claimed, reactor))
        self._admin(self.bridge, certificates)

    @property
    def _publishes_elsewhere(self) -> bool:
        """Is there mod_push, and a way to app servers that are not in this process?"""
        config = self.config
        is_way = any(listen.type in ("component", "s2s") for listen in config.listeners)
        return is_way and config.mod_push is not None and bool(config.server.domains)

    def _is_elsewhere(self, domain: str) -> bool:
        """Is there a way to this domain, other than within this process?"""
        if domain in self.attached:
            return True
        federation = self.federation
        return (
            federation is not None and domain not in self._router.routes and federation.policy.permits(domain)
        )

    def _bridge(self) -> MongoosePushBridge | None:
        section = self.config.bridge
        if section is None:
            return self._queue_alone() if self._remote is not None else None
        apps = self.config.apps.values()
        for name in dict.fromkeys((section.pool_name, *(app.pool_name for app in apps if app.pool_name))):
            where = self.config.http_connections[name]
            pool: HTTPPool | EmbeddedPool
            if where.server == EMBEDDED and self.push_service is not None:
                pool = EmbeddedPool(where.name, self.push_service.notifications)
            else:
                pool = HTTPPool(where, self._reactor, max_connections=section.max_http_connections)
            self._pools[name] = pool
            self._add(pool)
        bridge = MongoosePushBridge(
            section,
            self._pools[section.pool_name],
            self.storage.messages,
            self._reactor,
            random.SystemRandom(),
            lambda delivery: Deferred.fromCoroutine(self._unregistered(delivery)),
            trace=self.trace,
            services=tuple(
                dict.fromkeys((*services_to(self.config.mongoosepush), *(app.service for app in apps)))
            ),
            collapse=self.config.mod_push is None or self.config.mod_push.collapse,
            pools={
                **{
                    f"{app.service}@{app.name}": self._pools[app.pool_name or section.pool_name]
                    for app in apps
                },
                **self._elsewhere(),
            },
        )
        self._add(bridge)
        self.bridge = self._queue = bridge
        return bridge

    def _queue_alone(self) -> MongoosePushBridge:
        """What waits for app servers elsewhere, where there is no push service for anything else."""
        queue = MongoosePushBridge(
            BridgeSection(""),
            NoPushService(),
            self.storage.messages,
            self._reactor,
            random.SystemRandom(),
            lambda delivery: Deferred.fromCoroutine(self._unregistered(delivery)),
            trace=self.trace,
            services=(),
            collapse=self.config.mod_push is None or self.config.mod_push.collapse,
            pools=self._elsewhere(),
        )
        self._add(queue)
        self._queue = queue
        return queue

    def _is_back(self, domain: str) -> None:
        if self._queue is not None:
            self._queue.is_back(f"{REMOTE}{domain}")

    def _elsewhere(self) -> dict[str, RemoteAppServers]:
        return {} if self._remote is None else {REMOTE: self._remote}

    def _limited(self, bridge: MongoosePushBridge | None) -> IPushService | None:
        """The bridge, with what the apps allow each device before it."""
        apps = self.config.apps.values()
        windows = {f"{app.service}@{app.name}": app.rate_limit for app in apps if app.rate_limit}
        if bridge is None or not windows:
            return bridge
        return RateLimited(bridge, self.storage.messages, self._reactor, windows)

    async def _unregistered(self, delivery: Any) -> None:
        # In this order: the registration is that of the device as long as the device is known.
        if delivery.account and self.push is not None:
            await self.push.unregistered(delivery)
        if self._app_server is not None:
            await self._app_server.unregistered(delivery)

    def _pubsub(self, router: Router, bridge: IPushService | None) -> IPubSub | None:
        section = self.config.mod_pubsub
        if section is None or bridge is None or self.config.bridge is None:
            return None
        if self.config.apps:
            self.apps = Apps(
                tuple(self.config.apps.values()),
                self.storage.devices,
                bridge,
                self._reactor,
                self.config.server.domains,
                messages=self.storage.messages,
            )
        pubsub = PubSub(
            section,
            self.config.server.domains,
            self.storage.nodes,
            self.storage.messages,
            bridge,
            self._reactor,
            node_types=node_types_of(section.plugins),
            apps=self.apps,
        )
        self._app_server = pubsub
        for component in pubsub_components(pubsub, router, handlers_for(self.apps, self._reactor)):
            self._add(component)
        return pubsub

    def _component_listeners(self, certificates: CertificateStore) -> None:
        for listen in self.config.listeners:
            if listen.type == "component":
                factory = ComponentFactory(
                    listen, self.config.limits, self.attached, self._reactor, backlog=self.storage.pressure
                )
                self._add(Listener(listen, factory, certificates, self._reactor))

    def _s2s(self, router: Router, certificates: CertificateStore) -> None:
        """Behind the sessions, and stopped before them: what waits goes back to who is connected."""
        config, reactor = self.config, self._reactor
        listeners = [listen for listen in config.listeners if listen.type == "s2s"]
        names = s2s_names(config)
        if not listeners or not names:
            return
        chance = random.SystemRandom()
        tls = s2s_tls(config, certificates, names)
        static = {domain: host_and_port_in(text) for domain, text in config.s2s.static.items()}
        federation = Federation(
            router,
            Targets(make_resolver(reactor), static, reactor, chance),
            policy_of(config.s2s),
            tls,
            DialbackKeys(config.s2s.secret.encode() or chance.randbytes(32)),
            reactor,
            chance,
            back=self._is_back,
        )
        self.federation = federation
        self._add(federation)
        self._servers = ServerSide(
            router,
            lambda: router.routes.keys(),
            federation.policy,
            tls,
            federation.keys,
            federation.verify,
            federation.heard_from,
            reactor,
            chance,
            self.storage.pressure,
        )
        for listen in listeners:
            factory = S2SFactory(listen, config.limits, self._servers)
            self._add(Listener(listen, factory, certificates, reactor, tls.incoming()))

    def _components(self, router: Router, pubsub: IPubSub | None) -> None:
        """Attached last and left first: what other servers publish needs all the rest."""
        if pubsub is None:
            return
        for section in (each for each in self.config.components if each.jid in pubsub.hosts):
            link = ComponentLink(
                section,
                router,
                pubsub,
                self._reactor,
                random.SystemRandom(),
                self.storage.pressure,
                early=self._early.get(section.jid),
            )
            self.components.append(link)
            self._add(link)

    def _xmpp_server(
        self,
        router: Router,
        pubsub: IPubSub | None,
        bridge: IPushService | None,
        certificates: CertificateStore,
    ) -> None:
        config, reactor, storage = self.config, self._reactor, self.storage
        if not config.server.domains:
            return
        handlers = DomainHandlers(router)
        if config.mod_push is not None:
            section = config.mod_push
            self.push = Publisher(
                registrations=storage.registrations,
                messages=storage.messages,
                plugin=chain_of(section.plugin_module),
                pubsub=pubsub,
                push_service=bridge,
                clock=reactor,
                notify=section.notify,
                notify_inactive=section.notify_inactive,
                privacy=Privacy(
                    section.include_body,
                    section.include_sender,
                    section.hidden_body_text,
                    section.max_body_length,
                ),
                max_errors=section.max_errors,
                trace=self.trace,
                suspend_retry=section.suspend_retry,
                batch_window=section.batch_window,
                workers=section.workers,
                virtual_hosts=section.virtual_pubsub_hosts if config.bridge is not None else (),
                rosters=storage.rosters,
                remote=self._remote,
            )
            PushHandler(
                storage.registrations, self.push, reactor, section.max_registrations, self.trace
            ).setHandlerParent(handlers)
        hosts = sorted(pubsub.hosts) if pubsub is not None else []
        add_server_handlers(
            handlers,
            storage.rosters,
            self._resources,
            lambda domain: services_of(domain, [*hosts, *self.attached.names]),
            self._wall,
        )
        self._add(handlers)
        host = XMPPServer(
            config.server.domains,
            router,
            self._resources,
            handlers,
            storage.accounts,
            storage.messages,
            self.push,
            self._wall,
            config.limits.offline_messages_per_user,
            config.c2s.ack_timeout,
            self._requests,
        )
        authenticator = AccountAuthenticator(storage.accounts)
        throttles = throttles_for(config.auth)  # of all listeners together
        secret = lasting_secret(config.server.data_dir / "scram-secret")
        for listen in config.listeners:
            if listen.type == "c2s":
                for domain in config.server.domains if listen.tls != "none" else ():
                    certificates.server_options(domain)  # a bad file is found now, not by a client
                factory = C2SFactory(
                    listen,
                    config.auth,
                    config.limits,
                    certificates,
                    authenticator,
                    host,
                    reactor,
                    backlog=storage.pressure,
                    throttles=throttles,
                    secret=secret,
                    management=config.c2s,
                    traffic=self._traffic,
                )
                self._add(Listener(listen, factory, certificates, reactor))
        self._add(host)

    def _admin(self, bridge: MongoosePushBridge | None, certificates: CertificateStore) -> None:
        """Behind all others, whose figures it shows; so it is the first to stop."""
        config, reactor, database = self.config, self._reactor, self.storage.database
        listeners = [listen for listen in config.listeners if listen.type == "http"]
        if not listeners:
            return
        figures = Figures(
            sessions=lambda: len(self._resources),
            traffic=self._traffic,
            storage=database.seconds,
            backlog=lambda: database.backlog,
            requests={name: pool.statuses for name, pool in self._pools.items()},
            enddates=certificates.enddates,
            checks=lambda: self._checks(bridge, certificates),
            publishes={link.jid: link.answers for link in self.components},
            attached=lambda: self.attached.present,
        )
        if self.push is not None:
            figures.decisions = self.push.decisions
        if bridge is not None:
            figures.notifications, figures.latency = bridge.by_service, bridge.latency
        if self.federation is not None and self._servers is not None:
            federation, servers = self.federation, self._servers
            figures.streams = lambda: {"in": servers.streams, "out": federation.streams}
            figures.federated = lambda: {
                (kind, direction): number
                for kind, sent in federation.traffic.sent.items()
                for direction, number in (("in", servers.traffic.received[kind]), ("out", sent))
            }
            figures.federated_queued = lambda: federation.queued
            figures.returned = federation.bounces
        if self.push_service is not None:
            figures.collectors = (self.push_service.notifications.collector,)
        throttle, _ = throttles_for(config.auth)  # one of its own: who guesses here does not log in there
        resource = AdminResource(
            config.admin, figures, self.storage.row_counts, throttle, network_of, reactor
        )
        for listen in listeners:
            self._add(Listener(listen, AdminFactory(resource, reactor), certificates, reactor))

    def _checks(self, bridge: MongoosePushBridge | None, certificates: CertificateStore) -> Iterator[Check]:
        yield Check("storage", self.storage.database.trouble)
        if bridge is not None:
            yield Check("push service", bridge.trouble)
        for service in self:
            if isinstance(service, Listener | MongoosePush):
                yield Check(str(service.name), None if service.bound else "not listening")
        for link in self.components:
            yield Check(str(link.name), link.trouble)
        yield from certificate_checks(certificates.enddates(), self._wall.seconds())

    def _add(self, service: Any) -> None:
        service.setServiceParent(self)

    def startService(self) -> None:
        for notice in self.config.notices:
            self._log.warn("{notice}", notice=notice)
        if self._take_over:
            Deferred.fromCoroutine(self._in_place_of_another()).addErrback(self._not_in_place)
        else:
            self._start()

    async def _in_place_of_another(self) -> None:
        # Never while twistd starts us, whose ways of failing are others.
        await deferLater(self._reactor, 0)
        data_dir = self.config.server.data_dir
        for section in self.config.components:
            self._early[section.jid] = EarlyAttachment(section, self._reactor)
        for early in self._early.values():
            await early.attach()
        if is_claimed(data_dir):
            other = await deferToThread(call, data_dir, "status")
            self._log.info("taking the place of process {pid}", pid=other["pid"])
            os.kill(other["pid"], signal.SIGTERM)
        deadline = self._reactor.seconds() + TAKE_OVER_TIMEOUT
        while is_claimed(data_dir) and self._reactor.seconds() < deadline:
            await deferLater(self._reactor, 0.02)
        self._start()

    def _not_in_place(self, failure: Failure) -> None:
        if not failure.check(SystemExit):  # that was said
            self._log.failure("could not take the place of another server", failure)
        # In the reactor's loop SystemExit is an error like any other.
        atexit.register(os._exit, 1)
        self._reactor.stop()

    def _start(self) -> None:
        try:
            self.assemble()
            super().startService()
        except ConfigError as error:
            self._refuse(error.problems)
        except (PushError, OSError) as error:
            self._refuse([f"xmpppush: {error}"])
        for service in self:
            address = getattr(service, "address", None)
            if address is not None:
                self.addresses[service.name] = address
        self._is_ready = True
        collect_garbage_less_often()
        self._log.info("xmpppush {version} is ready", version=__version__)
        notify(READY)

    def stopService(self) -> "Deferred[None]":
        notify(STOPPING)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        """One after the other, the last started first: no new messages, then no new pushes, then the disk."""
        Service.stopService(self)
        for service in reversed(list(self)):
            if not (self._is_ready or service.running):
                continue  # one before it could not be started
            try:
                await maybeDeferred(service.stopService)
            except Exception:
                self._log.failure("{name} did not stop cleanly", name=service.name or type(service).__name__)

    def close_sessions(self, account: str, condition: str, text: str) -> None:
        """End all streams of an account."""
        for session in list(self._resources.of(account).values()):
            session.close(condition, text)

    def forget_account(self, account: str) -> None:
        """Send nothing more to the devices of an account that was removed."""
        if self._queue is not None:
            self._queue.forget_account(account)


def lasting_secret(path: Path) -> bytes:
    """32 random octets that outlive the process; they make the salts of accounts that do not exist."""
    if not path.exists():
        write_private(path, random.SystemRandom().randbytes(32))
    return path.read_bytes()


def collect_garbage_less_often() -> None:
    """
    Stanzas are circles of references, so the collector has work; but with Python's defaults it looks
    through everything ever imported again and again, which was a tenth of all CPU under load.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def direct_options(certificates: CertificateStore) -> IOpenSSLServerConnectionCreator:
    """For direct TLS; without a served domain only listeners of type http use it."""
    return certificates.sni_options(() if certificates.domains else ("localhost",))


def s2s_names(config: Config) -> tuple[str, ...]:
    """The domains with a certificate of their own on streams between servers."""
    served = config.server.domains
    hosts = config.mod_pubsub.hosts if config.mod_pubsub is not None else ()
    below = tuple(f".{domain}" for domain in served)
    return (*served, *(host for host in hosts if host in config.tls_domains or not host.endswith(below)))


def s2s_tls(config: Config, certificates: CertificateStore, names: Sequence[str]) -> S2STLS:
    """Raises `ConfigError`: ``ca_file`` cannot be used."""
    try:
        return S2STLS(certificates, names, config.s2s.ca_file)
    except (OSError, ValueError) as error:
        raise ConfigError([f"[s2s] ca_file: {config.s2s.ca_file}: {error}"]) from error


def host_and_port_in(text: str) -> tuple[str, int]:
    """Of ``host:port``, where an IPv6 address stands in brackets."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def services_to(section: MongoosePushSection | None) -> tuple[str, ...]:
    """What a registration may name as ``service``: MongoosePush's two, and Web Push where we have it."""
    if section is not None and (section.webpush or "webpush" in getattr(section.sandbox, "services", ())):
        return (*SERVICES, "webpush")
    return SERVICES


def services_of(domain: str, hosts: Iterable[str]) -> list[str]:
    """The pubsub hosts that a domain shows in disco#items: its own, and those of no domain here."""
    return [host for host in hosts if host.endswith(f".{domain}") or host == domain]


def makeService(options: Options) -> IService:
    """Called by twistd, before it forks."""
    from twisted.internet import reactor

    assert options.parent is not None, "twistd has the rest of the options"
    keep_steady(reactor)
    return Application(
        options.configuration,
        reactor,
        partial(refuse_start, options.parent, late=bool(options["take-over"])),
        bool(options["take-over"]),
    )


def refuse_start(
    twistd: MutableMapping[str, Any], problems: Sequence[str], *, late: bool = False
) -> NoReturn:
    """
    Say why there is no start where the operator looks: the terminal or, of a daemon, log and parent.

    Args:
        late: twistd has told the parent that all is well: the pipe to it is closed, and its number may be
            that of something else by now.
    """
    if twistd["pidfile"] and not late:  # at its end twistd removes it itself
        Path(twistd["pidfile"]).unlink(missing_ok=True)
    if twistd["nodaemon"]:
        print(*problems, sep="\n", file=sys.__stderr__)  # sys.stderr is the log by now
    else:
        for problem in problems:
            Application._log.critical("{problem}", problem=problem)
        if not late and twistd.get("statusPipe") is not None:
            os.write(twistd["statusPipe"], f"1 {problems[0]}".encode()[:100])  # as twistd reads it
    raise SystemExit(1)
