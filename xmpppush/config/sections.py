"""
The configuration as frozen values, a class for each section of ``server.ini``.

Durations are seconds, sizes are bytes, lists are tuples, paths are absolute, ``@HOST@`` is
expanded, secrets are kept out of ``repr``.
"""

from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen


@frozen
class ServerSection:
    domains: tuple[str, ...] = ("localhost",)
    data_dir: Path = Path("var")
    log_format: str = "text"
    log_level: str = "info"


@frozen
class StorageSection:
    """``url``: ``sqlite:///FILE`` (FILE absolute here) or ``postgresql://...`` (may hold a password)."""

    url: str = field(default="sqlite:///xmpppush.db", repr=False)
    auto_upgrade: bool = True


@frozen
class TraceSection:
    """What ``xmpppush push trace`` can tell. ``keep`` in seconds; ``max_notes`` 0: nothing is noted."""

    keep: float = 7 * 86400.0
    max_notes: int = 500_000


@frozen
class TLSSection:
    """Both ``None``: a certificate is generated below ``data_dir`` at first start."""

    certfile: Path | None = None
    keyfile: Path | None = None


@frozen
class ListenSection:
    """
    ``[listen:NAME]``.

    Attributes:
        type: ``c2s``, ``s2s``, ``component``, ``websocket`` or ``http``.
        endpoint: A Twisted server endpoint string.
        tls: ``required``, ``optional``, ``direct`` or ``none``.
        max_stanza_size: Bytes, after authentication.
        secrets: Component domain to secret.
    """

    name: str
    type: str
    endpoint: str
    tls: str = "required"
    max_stanza_size: int = 256 * 1024
    dialback: bool = True
    path: str = "/xmpp-websocket"
    secrets: Mapping[str, str] = field(factory=dict, repr=False)


@frozen
class ComponentSection:
    """``[component]`` or ``[component:NAME]``: attach to another XMPP server."""

    name: str
    jid: str
    endpoint: str
    secret: str = field(repr=False)


@frozen
class C2SSection:
    resume_timeout: float = 600.0
    ack_timeout: float = 60.0


@frozen
class AuthSection:
    mechanisms: tuple[str, ...] = ("SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN")
    allow_plain_without_tls: bool = False
    registration: bool = False
    max_failures: int = 5
    failure_window: float = 60.0


@frozen
class S2SSection:
    """
    ``[s2s]``.

    Attributes:
        tls: ``required`` or ``optional``, for streams to other servers.
        verify: Do other servers need a valid certificate?
        ca_file: What it is verified with; ``None``: the system's store.
        allow, block: Domains, each with all below it; ``allow`` empty: everybody.
        secret: For dialback keys, the same on all servers of a domain; ``""``: a random one at each start.
        static: Domain to ``host:port``, not looked up in DNS.
    """

    tls: str = "required"
    verify: bool = False
    ca_file: Path | None = None
    allow: tuple[str, ...] = ()
    block: tuple[str, ...] = ()
    secret: str = field(default="", repr=False)
    static: Mapping[str, str] = field(factory=dict)


@frozen
class ModPushSection:
    """
    ``batch_window`` in seconds, ``0.0``: off. ``notify``: ``device-offline`` or ``account-offline``.

    ``max_body_length`` in characters, 0: no limit. ``suspend_retry`` in seconds.
    """

    workers: int = 100
    plugin_module: tuple[str, ...] = ("defaults",)
    notify: str = "device-offline"
    notify_inactive: bool = False
    include_body: bool = True
    include_sender: bool = True
    hidden_body_text: str = "New message"
    max_body_length: int = 1000
    collapse: bool = True
    batch_window: float = 0.0
    virtual_pubsub_hosts: tuple[str, ...] = ()
    max_registrations: int = 20
    max_errors: int = 10
    suspend_retry: float = 86400.0


@frozen
class ModPubsubSection:
    """``hosts`` is ``host`` with ``@HOST@`` expanded, one for each served domain."""

    hosts: tuple[str, ...]
    plugins: tuple[str, ...] = ("push",)
    max_nodes_per_user: int = 50
    access_createnode: str = "all"


EMBEDDED = "embedded:"
"""As ``server`` of ``[http_connections:NAME]``: the ``[mongoosepush]`` of this process, without HTTP."""


@frozen
class AppSection:
    """
    ``[app:NAME]``: an app whose devices register here, and how its notifications are sent.

    Attributes:
        service: ``fcm``, ``apns`` or ``webpush``.
        hosts: ``host``: pubsub hosts and components at which it is registered for; empty: all.
        p2, tigase, push_module: Names by which requests of that way mean this app: packages, providers,
            fpush's modules; ``*``: any, and none. Empty: not in this way.
        appserver: Is it registered for in the way of mod_push_appserver?
        pool_name: An ``[http_connections:NAME]``; ``""``: the bridge's.
        content: ``auto``, ``full``, ``generic`` or ``silent``.
        time_to_live: Seconds; 0: not said.
        domains: Whose accounts and servers may use it; empty: all.
        rate_limit: Seconds: of the pushes to a device in that time the first and the last; 0: all.
        domain_rate: Publishes a second of a domain that is not served here; 0: no limit.
        keep_account: Is the JID of a device's owner kept, for XEP-0357 section 8?
    """

    name: str
    service: str
    hosts: tuple[str, ...] = ()
    p2: tuple[str, ...] = ()
    appserver: bool = False
    tigase: tuple[str, ...] = ()
    push_module: tuple[str, ...] = ()
    pool_name: str = ""
    tags: tuple[str, ...] = ()
    mode: str = "prod"
    topic: str = ""
    priority: str = ""
    sound: str = ""
    click_action: str = ""
    time_to_live: float = 0.0
    content: str = "auto"
    domains: tuple[str, ...] = ()
    max_devices_per_user: int = 20
    registrations_per_minute: int = 10
    rate_limit: float = 0.0
    domain_rate: int = 0
    keep_account: bool = False


@frozen
class HTTPConnectionsSection:
    """
    ``[http_connections:NAME]``.

    Attributes:
        server: ``https://host[:port]``, ``http://...``, with an optional path prefix, or ``embedded:``.
        connections: Idle connections kept open at the most.
        ca_file: A PEM file; ``None``: the system's trust store. ``builtin`` is already resolved
            to the path of the generated CA.
        api_key: Sent with each request as ``Authorization: Bearer``; ``""``: none is.
    """

    name: str
    server: str
    api_key: str = field(default="", repr=False, kw_only=True)
    connections: int = 10
    request_timeout: float = 5.0
    ca_file: Path | None = None
    verify: bool = True


@frozen
class BridgeSection:
    """``[mod_push_service_mongoosepush]``; ``max_attempts`` 0: until ``ttl``."""

    pool_name: str
    api_version: str = "v3"
    max_http_connections: int = 100
    max_attempts: int = 0
    retry_base: float = 1.0
    retry_cap: float = 300.0
    ttl: float = 86400.0


@frozen
class FCMPoolSection:
    """
    ``[mongoosepush:fcm:NAME]``.

    Attributes:
        endpoint: ``host`` or ``host:port`` to use for Google's, or ``""``.
        connections: Kept open to it at the most.
        ca_file: What its certificate and the token endpoint's are verified with; ``None``: the system's.
    """

    name: str
    appfile: Path
    mode: str = "prod"
    tags: tuple[str, ...] = ()
    endpoint: str = ""
    connections: int = 10
    ca_file: Path | None = None


@frozen
class APNsPoolSection:
    """
    ``[mongoosepush:apns:NAME]``: ``certfile`` and ``keyfile``, or ``key_id``, ``team_id`` and ``p8_file``.

    Attributes:
        endpoint: ``host`` or ``host:port`` in place of Apple's, or ``""``.
        use_2197: Port 2197 where ``endpoint`` names none: some networks block 443.
        connections: HTTP/2 connections, each with as many streams as the other side allows.
        ca_file: What its certificate is verified with; ``None``: the system's store.
    """

    name: str
    certfile: Path | None = None
    keyfile: Path | None = None
    key_id: str = ""
    team_id: str = ""
    p8_file: Path | None = None
    mode: str = "prod"
    default_topic: str = ""
    tags: tuple[str, ...] = ()
    endpoint: str = ""
    use_2197: bool = False
    connections: int = 1
    ca_file: Path | None = None


@frozen
class WebPushPoolSection:
    """
    ``[mongoosepush:webpush:NAME]`` (RFC 8030, RFC 8291, RFC 8292).

    Attributes:
        vapid_key_file: PEM of a P-256 private key.
        subject: ``mailto:`` or ``https:`` contact that the push services see (RFC 8292 section 2.1).
        allowed_hosts: Where subscriptions may point, ``*.example.org`` for all below; a subscription comes
            from a client, and whatever it names would be connected to from here.
        ca_file: What their certificates are verified with; ``None``: the system's store.
    """

    name: str
    vapid_key_file: Path
    subject: str
    mode: str = "prod"
    tags: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    connections: int = 10
    ca_file: Path | None = None


@frozen
class SandboxSection:
    services: tuple[str, ...] = ("fcm", "apns")
    capacity: int = 1000


@frozen
class MongoosePushSection:
    """
    ``[mongoosepush]``, the embedded push service, and its pools.

    Attributes:
        proxy: ``http://[user:password@]host:port`` towards the providers (CONNECT), or ``""``.
        max_waiting: Requests of a pool that wait for a free stream or connection; more get 429.
        tags_optional: May requests without tags use pools with tags?
        api_keys: File with ``NAME KEY [REQUESTS_PER_SECOND]`` lines; ``None``: no authentication.
    """

    endpoint: str = "ssl:8443:interface=127.0.0.1"
    proxy: str = field(default="", repr=False)
    max_waiting: int = 10_000
    tags_optional: bool = False
    api_keys: Path | None = None
    certfile: Path | None = None
    keyfile: Path | None = None
    fcm: Mapping[str, FCMPoolSection] = field(factory=dict)
    apns: Mapping[str, APNsPoolSection] = field(factory=dict)
    webpush: Mapping[str, WebPushPoolSection] = field(factory=dict)
    sandbox: SandboxSection | None = None


@frozen
class AdminSection:
    """``password`` empty: loopback only."""

    password: str = field(default="", repr=False)
    metrics: bool = True


@frozen
class LimitsSection:
    c2s_stanzas_per_second: int = 100
    s2s_stanzas_per_second: int = 1000
    component_stanzas_per_second: int = 1000
    unauthenticated_timeout: float = 30.0
    connections_per_address: int = 200
    offline_messages_per_user: int = 1000


@frozen
class Config:
    """
    The whole configuration. A role whose section is absent is ``None`` and off.

    Attributes:
        path: The file it was read from, absolute.
        tls_domains: ``[tls:DOMAIN]`` sections by domain; ``tls`` serves the rest.
        notices: One line for each thing that is accepted and has no effect in this version.
    """

    path: Path
    server: ServerSection
    storage: StorageSection
    trace: TraceSection = TraceSection()
    tls: TLSSection = TLSSection()
    tls_domains: Mapping[str, TLSSection] = field(factory=dict)
    listeners: tuple[ListenSection, ...] = ()
    components: tuple[ComponentSection, ...] = ()
    c2s: C2SSection = C2SSection()
    auth: AuthSection = AuthSection()
    s2s: S2SSection = S2SSection()
    mod_push: ModPushSection | None = None
    mod_pubsub: ModPubsubSection | None = None
    apps: Mapping[str, AppSection] = field(factory=dict)
    http_connections: Mapping[str, HTTPConnectionsSection] = field(factory=dict)
    bridge: BridgeSection | None = None
    mongoosepush: MongoosePushSection | None = None
    admin: AdminSection = AdminSection()
    limits: LimitsSection = LimitsSection()
    notices: tuple[str, ...] = ()
