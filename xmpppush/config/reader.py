"""
``server.ini`` to a `Config`, with all problems at once.

Four steps: the text's form (`text`), the environment over it (`environment`), each section by itself (here),
and what sections ask of each other (`checks`). Nothing is opened but the files that the values name.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from attrs import evolve
from twisted.plugin import getPlugins

from xmpppush.config.checks import problems_between
from xmpppush.config.endpoints import moved, parse_client_endpoint, parse_server_endpoint
from xmpppush.config.environment import Entries, lay_over
from xmpppush.config.keys import Entry, Keys, Source
from xmpppush.config.notices import NODE_TYPES, PUSH_PLUGINS, notices_of
from xmpppush.config.sections import (
    EMBEDDED,
    AdminSection,
    APNsPoolSection,
    AppSection,
    AuthSection,
    BridgeSection,
    C2SSection,
    ComponentSection,
    Config,
    FCMPoolSection,
    HTTPConnectionsSection,
    LimitsSection,
    ListenSection,
    ModPubsubSection,
    ModPushSection,
    MongoosePushSection,
    S2SSection,
    SandboxSection,
    ServerSection,
    StorageSection,
    TLSSection,
    TraceSection,
    WebPushPoolSection,
)
from xmpppush.config.text import parse_ini
from xmpppush.config.values import (
    BadValue,
    bearer_token,
    boolean,
    choice,
    database_url_in,
    domain,
    duration,
    file_in,
    folder_in,
    host_and_port,
    http_url,
    line,
    listed,
    name,
    optional_address,
    optional_file_in,
    printable,
    proxy_url,
    size,
    suggestion,
    web_path,
    whole,
)
from xmpppush.errors import ConfigError
from xmpppush.interfaces import INodeType, IPushPlugin

__all__ = ["BUILTIN_CA", "load"]

T = TypeVar("T")

MAX_FILE = 4 * 1024 * 1024
MANY = 1_000_000
BUILTIN_CA = Path("tls") / "ca.pem"
"""Where, below ``data_dir``, the generated CA is; ``ca_file = builtin`` means this file."""

MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN")
LISTENER_TYPES = ("c2s", "s2s", "component", "websocket", "http")
# WebSocket and HTTP have no STARTTLS (RFC 7395 section 3.9), so theirs is TLS at once; components hardly
# ever have any.
DEFAULT_TLS = {
    "c2s": "required",
    "s2s": "required",
    "component": "none",
    "websocket": "direct",
    "http": "direct",
}
LISTENER_KEYS = {
    "max_stanza_size": ("c2s", "s2s", "component", "websocket"),
    "dialback": ("s2s",),
    "path": ("websocket",),
}
LOG_LEVELS = {
    "notice": "info",
    "warning": "warn",
    "alert": "critical",
    "emergency": "critical",
    "none": "critical",
}

PLAIN_SECTIONS = (
    "server",
    "storage",
    "trace",
    "tls",
    "component",
    "c2s",
    "auth",
    "s2s",
    "mod_push",
    "mod_pubsub",
    "mod_push_service_mongoosepush",
    "mongoosepush",
    "mongoosepush:sandbox",
    "admin",
    "limits",
)
NAMED_SECTIONS = (
    "tls",
    "listen",
    "component",
    "app",
    "http_connections",
    "mongoosepush:fcm",
    "mongoosepush:apns",
    "mongoosepush:webpush",
)


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """
    Read the file and check it whole.

    Args:
        path: Named as the operator did: problems begin with it.
        environ: For ``${NAME}``, ``PUSH_*`` and ``CREDENTIALS_DIRECTORY``.

    Raises:
        ConfigError: With one line for every problem there is.
    """
    source = Source(printable(str(path)), Path(os.path.abspath(path)).parent, environ)
    text = _read(path, source)
    sections, problems = parse_ini(text)
    for place, problem in problems:
        source.problem(place, problem)
    entries = {section: {key: Entry(raw) for key, raw in keys.items()} for section, keys in sections.items()}
    given = {section: frozenset(keys) for section, keys in entries.items()}
    config = _Reader(source, entries).config(path)
    if source.problems:
        raise ConfigError(source.problems)
    return evolve(config, notices=notices_of(config, given))


def _read(path: Path, source: Source) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no file name"
        hint = "; -c FILE names another one" if isinstance(error, FileNotFoundError) else ""
        raise ConfigError([f"{source.label}: cannot be read: {reason}{hint}"]) from None
    if len(data) > MAX_FILE:
        raise ConfigError([f"{source.label}: larger than {MAX_FILE} bytes, so no configuration"])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise ConfigError([f"{source.label}: line {number}: not UTF-8"]) from None


class _Reader:
    """The sections, each by a method of its own."""

    def __init__(self, source: Source, entries: Entries) -> None:
        self._source = source
        self._entries = entries
        self._folder = source.folder
        self._off = lay_over(entries, source)

    def config(self, path: Path) -> Config:
        self._complain_about_unknown_sections()
        server = self._server()
        pubsub = self._optional("mod_pubsub", lambda keys: self._mod_pubsub(keys, server.domains))
        auth, c2s, s2s = self._auth(), self._c2s(), self._s2s()
        config = Config(
            path=self._folder / path.name,
            server=server,
            storage=self._storage(server.data_dir),
            trace=self._trace(),
            tls=self._tls(self._keys("tls")),
            tls_domains=self._tls_domains(),
            listeners=self._several("listen", self._listen),
            components=self._components(),
            c2s=c2s,
            auth=auth,
            s2s=s2s,
            mod_push=self._optional("mod_push", lambda keys: self._mod_push(keys, server.domains)),
            mod_pubsub=pubsub,
            apps={
                app.name: app
                for app in self._several("app", lambda keys, name: self._app(keys, name, server.domains))
            },
            http_connections={
                pool.name: pool
                for pool in self._several(
                    "http_connections", lambda keys, name: self._http_connections(keys, name, server.data_dir)
                )
            },
            bridge=self._optional("mod_push_service_mongoosepush", self._bridge),
            mongoosepush=self._optional("mongoosepush", self._mongoosepush),
            admin=self._admin(),
            limits=self._limits(),
        )
        for place, text in problems_between(config, frozenset(self._entries)):
            self._source.problem(place, text)
        return config

    # How sections are found.

    def _keys(self, section: str) -> Keys:
        return Keys(self._source, section, self._entries.get(section, {}))

    def _optional(self, section: str, read: Callable[[Keys], T]) -> T | None:
        return read(self._keys(section)) if section in self._entries else None

    def _several(self, head: str, read: Callable[[Keys, str], T | None]) -> tuple[T, ...]:
        """What the sections ``[head:NAME]`` say, but for those that cannot be used."""
        values = []
        for section in self._entries:
            if section.startswith(f"{head}:"):
                value = read(self._keys(section), section.removeprefix(f"{head}:"))
                if value is not None:
                    values.append(value)
        return tuple(values)

    def _complain_about_unknown_sections(self) -> None:
        for section in self._entries:
            if section in PLAIN_SECTIONS:
                continue
            head, _, rest = section.rpartition(":") if section.count(":") < 2 else _split_twice(section)
            if head in NAMED_SECTIONS:
                if head != "tls" and not _is_name(rest):
                    self._source.problem(
                        f"[{section}]",
                        f"'{head}:' goes before a name made of letters, digits, '_', '-' and '.'",
                    )
                continue
            self._source.problem(f"[{section}]", f"no such section{_section_hint(section)}")

    # One method for each section.

    def _server(self) -> ServerSection:
        keys, default = self._keys("server"), ServerSection()
        section = ServerSection(
            domains=keys.take("domains", listed(domain), default.domains),
            data_dir=keys.take(
                "data_dir", folder_in(self._folder), folder_in(self._folder)(str(default.data_dir))
            ),
            log_format=keys.take("log_format", choice("text", "json"), default.log_format),
            log_level=keys.take(
                "log_level",
                choice("debug", "info", "warn", "error", "critical", also=LOG_LEVELS),
                default.log_level,
            ),
        )
        keys.finish()
        return section

    def _storage(self, data_dir: Path) -> StorageSection:
        keys, parse = self._keys("storage"), database_url_in(data_dir)
        section = StorageSection(
            url=keys.take("url", parse, f"sqlite:///{data_dir / 'xmpppush.db'}", secret=True),
            auto_upgrade=keys.take("auto_upgrade", boolean, True),
        )
        keys.finish()
        return section

    def _trace(self) -> TraceSection:
        keys, default = self._keys("trace"), TraceSection()
        section = TraceSection(
            keep=keys.take("keep", duration("1m", "365d"), default.keep),
            max_notes=keys.take("max_notes", whole(0, 10 * MANY), default.max_notes),
        )
        keys.finish()
        return section

    def _tls(self, keys: Keys) -> TLSSection:
        section = TLSSection(*self._certificate(keys))
        keys.finish()
        return section

    def _certificate(self, keys: Keys) -> tuple[Path | None, Path | None]:
        """``certfile`` and ``keyfile``: both or neither."""
        parse = optional_file_in(self._folder)
        before = len(self._source.problems)
        certfile, keyfile = keys.take("certfile", parse, None), keys.take("keyfile", parse, None)
        if len(self._source.problems) == before and (certfile is None) != (keyfile is None):
            lacking, there = ("keyfile", "certfile") if keyfile is None else ("certfile", "keyfile")
            keys.problem(lacking, f"missing; {there} is set, and the two go together")
        return certfile, keyfile

    def _tls_domains(self) -> dict[str, TLSSection]:
        sections: dict[str, TLSSection] = {}
        for section in [section for section in self._entries if section.startswith("tls:")]:
            keys = self._keys(section)
            value = self._tls(keys)
            try:
                sections[domain(section.removeprefix("tls:"))] = value
            except BadValue as error:
                keys.problem("", f"what follows 'tls:' {error}")
        return sections

    def _listen(self, keys: Keys, label: str) -> ListenSection | None:
        kind_of = choice(*LISTENER_TYPES)
        if keys.given("type") or label in LISTENER_TYPES:
            kind = keys.take("type", kind_of, label if label in LISTENER_TYPES else None)
        else:
            kind = keys.demand("type", kind_of, f"one of {', '.join(LISTENER_TYPES)}")
        hints = {}
        for key, kinds in LISTENER_KEYS.items():
            if kind is not None and kind not in kinds:
                hints[key] = f"has a meaning for listeners of type {', '.join(kinds)} only"
        endpoint = keys.demand(
            "endpoint",
            lambda text: parse_server_endpoint(text, self._folder),
            "a Twisted endpoint string such as tcp:5222:interface=127.0.0.1",
        )
        default = ListenSection(name=label, type=kind or "c2s", endpoint="")
        direct = endpoint is not None and endpoint.has_tls
        tls = keys.take(
            "tls",
            choice("required", "optional", "direct", "none"),
            "direct" if direct else DEFAULT_TLS[default.type],
        )
        if default.type in ("websocket", "http", "component"):
            if tls == "optional":
                what = "XEP-0114" if default.type == "component" else "HTTP"
                keys.problem(
                    "tls", f"'optional' needs STARTTLS, which {what} does not have; use direct or none"
                )
            tls = "direct" if tls == "required" else tls
        if endpoint is not None and direct and tls != "direct":
            keys.problem("tls", f"'{tls}' contradicts the endpoint: '{endpoint.kind}:' is tls = direct")

        def maybe(key: str, parse: Callable[[str], T], value: T) -> T:
            return value if key in hints else keys.take(key, parse, value)

        # RFC 6120 section 13.12: a server's limit is not below 10000 octets.
        section = evolve(
            default,
            endpoint=str(endpoint) if endpoint is not None else "",
            tls=tls,
            max_stanza_size=maybe("max_stanza_size", size("10000", "64MiB"), default.max_stanza_size),
            dialback=maybe("dialback", boolean, default.dialback),
            path=maybe("path", web_path, default.path),
            secrets=keys.take_all("secret.", domain, _secret) if kind in ("component", None) else {},
        )
        if kind == "component" and not section.secrets:
            keys.problem("", "no component could attach; one 'secret.DOMAIN = SECRET' line for each")
        keys.finish(hints)
        return section if kind is not None and endpoint is not None else None

    def _components(self) -> tuple[ComponentSection, ...]:
        unnamed = self._optional("component", lambda keys: self._component(keys, ""))
        return ((unnamed,) if unnamed else ()) + self._several("component", self._component)

    def _component(self, keys: Keys, label: str) -> ComponentSection | None:
        jid = keys.demand("jid", domain, "the domain that the XMPP server knows the component by")
        endpoint = keys.demand(
            "endpoint",
            lambda text: parse_client_endpoint(text, self._folder),
            "a Twisted client endpoint string such as tcp:127.0.0.1:5347",
        )
        secret = keys.demand("secret", _secret, "the secret that the XMPP server has for it", secret=True)
        keys.finish()
        if jid is None or endpoint is None or secret is None:
            return None
        return ComponentSection(label, jid, str(endpoint), secret)

    def _c2s(self) -> C2SSection:
        keys, default = self._keys("c2s"), C2SSection()
        section = C2SSection(
            resume_timeout=keys.take("resume_timeout", duration("0s", "30d"), default.resume_timeout),
            ack_timeout=keys.take("ack_timeout", duration("1s", "1d"), default.ack_timeout),
        )
        keys.finish()
        return section

    def _auth(self) -> AuthSection:
        keys, default = self._keys("auth"), AuthSection()
        section = AuthSection(
            mechanisms=keys.take("mechanisms", listed(choice(*MECHANISMS), least=1), default.mechanisms),
            allow_plain_without_tls=keys.take(
                "allow_plain_without_tls", boolean, default.allow_plain_without_tls
            ),
            registration=keys.take("registration", boolean, default.registration),
            max_failures=keys.take("max_failures", whole(0, MANY), default.max_failures),
            failure_window=keys.take("failure_window", duration("1s", "30d"), default.failure_window),
        )
        keys.finish()
        return section

    def _s2s(self) -> S2SSection:
        keys, default = self._keys("s2s"), S2SSection()
        section = S2SSection(
            tls=keys.take("tls", choice("required", "optional"), default.tls),
            verify=keys.take("verify", boolean, default.verify),
            ca_file=keys.take("ca_file", optional_file_in(self._folder), default.ca_file),
            allow=keys.take("allow", listed(domain), default.allow),
            block=keys.take("block", listed(domain), default.block),
            secret=keys.take("secret", _secret, default.secret, secret=True),
            static=keys.take_all("static.", domain, host_and_port),
        )
        keys.finish()
        return section

    def _mod_push(self, keys: Keys, domains: tuple[str, ...]) -> ModPushSection:
        default = ModPushSection()
        section = ModPushSection(
            workers=keys.take("workers", whole(1, 100_000), default.workers),
            plugin_module=keys.take("plugin_module", listed(_push_plugin, least=1), default.plugin_module),
            notify=keys.take("notify", choice("device-offline", "account-offline"), default.notify),
            notify_inactive=keys.take("notify_inactive", boolean, default.notify_inactive),
            include_body=keys.take("include_body", boolean, default.include_body),
            include_sender=keys.take("include_sender", boolean, default.include_sender),
            hidden_body_text=keys.take("hidden_body_text", line, default.hidden_body_text),
            max_body_length=keys.take("max_body_length", whole(0, MANY), default.max_body_length),
            collapse=keys.take("collapse", boolean, default.collapse),
            batch_window=keys.take("batch_window", duration("0s", "1d"), default.batch_window),
            virtual_pubsub_hosts=keys.take(
                "virtual_pubsub_hosts", _hosts(domains, least=0), default.virtual_pubsub_hosts
            ),
            max_registrations=keys.take("max_registrations", whole(1, MANY), default.max_registrations),
            max_errors=keys.take("max_errors", whole(1, MANY), default.max_errors),
            suspend_retry=keys.take("suspend_retry", duration("1s", "365d"), default.suspend_retry),
        )
        keys.finish()
        return section

    def _mod_pubsub(self, keys: Keys, domains: tuple[str, ...]) -> ModPubsubSection:
        default = ModPubsubSection(hosts=tuple(f"pubsub.{each}" for each in domains))
        if not keys.given("host") and not domains:
            keys.problem("host", "missing; there is no served domain to derive it from")
        section = ModPubsubSection(
            hosts=keys.take("host", _hosts(domains, least=1), default.hosts),
            plugins=keys.take("plugins", listed(_node_type, least=1), default.plugins),
            max_nodes_per_user=keys.take("max_nodes_per_user", whole(1, MANY), default.max_nodes_per_user),
            access_createnode=keys.take(
                "access_createnode", choice("all", "local", "none"), default.access_createnode
            ),
        )
        keys.finish()
        return section

    def _app(self, keys: Keys, label: str, domains: tuple[str, ...]) -> AppSection | None:
        default = AppSection(label, "")
        service = keys.demand("service", choice("fcm", "apns", "webpush"), "one of fcm, apns, webpush")
        section = AppSection(
            name=label,
            service=service or "",
            hosts=keys.take("host", _hosts(domains, least=0), default.hosts),
            p2=keys.take("p2", listed(line), default.p2),
            appserver=keys.take("appserver", boolean, default.appserver),
            tigase=keys.take("tigase", listed(line), default.tigase),
            push_module=keys.take("push_module", listed(line), default.push_module),
            pool_name=keys.take("pool_name", _optional(name), default.pool_name),
            tags=keys.take("tags", listed(line), default.tags),
            mode=keys.take("mode", choice("prod", "dev"), default.mode),
            topic=keys.take("topic", line, default.topic),
            priority=keys.take("priority", _optional(choice("normal", "high")), default.priority),
            sound=keys.take("sound", line, default.sound),
            click_action=keys.take("click_action", line, default.click_action),
            time_to_live=keys.take("time_to_live", duration("0s", "365d"), default.time_to_live),
            content=keys.take("content", choice("auto", "full", "generic", "silent"), default.content),
            domains=keys.take("domains", _hosts(domains, least=0), default.domains),
            max_devices_per_user=keys.take(
                "max_devices_per_user", whole(1, MANY), default.max_devices_per_user
            ),
            registrations_per_minute=keys.take(
                "registrations_per_minute", whole(0, MANY), default.registrations_per_minute
            ),
            rate_limit=keys.take("rate_limit", duration("0s", "1d"), default.rate_limit),
            domain_rate=keys.take("domain_rate", whole(0, MANY), default.domain_rate),
            keep_account=keys.take("keep_account", boolean, default.keep_account),
        )
        keys.finish()
        return section if service is not None and _is_name(label) else None

    def _http_connections(self, keys: Keys, label: str, data_dir: Path) -> HTTPConnectionsSection | None:
        default = HTTPConnectionsSection(label, "")

        def ca_file(text: str) -> Path | None:
            if text.lower() == "builtin":
                return data_dir / BUILTIN_CA
            return optional_file_in(self._folder)(text)

        server = keys.demand("server", _server_url, "an address such as https://localhost:8443")
        section = HTTPConnectionsSection(
            name=label,
            server=server or "",
            api_key=keys.take("api_key", bearer_token, default.api_key, secret=True),
            connections=keys.take("connections", whole(1, 10_000), default.connections),
            request_timeout=keys.take("request_timeout", duration("10ms", "1h"), default.request_timeout),
            ca_file=keys.take("ca_file", ca_file, default.ca_file),
            verify=keys.take("verify", boolean, default.verify),
        )
        keys.finish()
        return section if _is_name(label) else None

    def _bridge(self, keys: Keys) -> BridgeSection:
        default = BridgeSection("")
        section = BridgeSection(
            pool_name=keys.demand("pool_name", name, "the NAME of an [http_connections:NAME] section") or "",
            api_version=keys.take("api_version", choice("v1", "v2", "v3"), default.api_version),
            max_http_connections=keys.take(
                "max_http_connections", whole(1, 100_000), default.max_http_connections
            ),
            max_attempts=keys.take("max_attempts", whole(0, MANY), default.max_attempts),
            retry_base=keys.take("retry_base", duration("1ms", "1d"), default.retry_base),
            retry_cap=keys.take("retry_cap", duration("1ms", "30d"), default.retry_cap),
            ttl=keys.take("ttl", duration("1s", "365d"), default.ttl),
        )
        keys.finish()
        return section

    def _mongoosepush(self, keys: Keys) -> MongoosePushSection:
        default = MongoosePushSection()
        certfile, keyfile = self._certificate(keys)
        section = MongoosePushSection(
            endpoint=self._mongoosepush_endpoint(keys, default.endpoint),
            proxy=keys.take("proxy", proxy_url, default.proxy, secret=True),
            max_waiting=keys.take("max_waiting", whole(0, MANY), default.max_waiting),
            tags_optional=keys.take("tags_optional", boolean, default.tags_optional),
            api_keys=keys.take("api_keys", optional_file_in(self._folder), default.api_keys),
            certfile=certfile,
            keyfile=keyfile,
            fcm={pool.name: pool for pool in self._several("mongoosepush:fcm", self._fcm)},
            apns={pool.name: pool for pool in self._several("mongoosepush:apns", self._apns)},
            webpush={pool.name: pool for pool in self._several("mongoosepush:webpush", self._webpush)},
            sandbox=self._optional("mongoosepush:sandbox", self._sandbox),
        )
        keys.finish()
        return section

    def _mongoosepush_endpoint(self, keys: Keys, default: str) -> str:
        """The file's endpoint, on the port and address of the environment."""
        endpoint = keys.take(
            "endpoint",
            lambda text: parse_server_endpoint(text, self._folder),
            parse_server_endpoint(default, self._folder),
        )
        for variable, part in (("PUSH_HTTPS_PORT", "port"), ("PUSH_HTTPS_BIND_ADDR", "interface")):
            if value := self._source.environ.get(variable, ""):
                try:
                    endpoint = moved(endpoint, part, value)
                except BadValue as error:
                    self._source.problem(f"environment variable {variable}", f"the endpoint {error}")
        return str(endpoint)

    def _fcm(self, keys: Keys, label: str) -> FCMPoolSection | None:
        default = FCMPoolSection(label, Path())
        appfile = keys.demand(
            "appfile",
            file_in(self._folder),
            "the JSON key of a service account: Firebase console, Project settings, Service accounts",
        )
        section = FCMPoolSection(
            name=label,
            appfile=appfile or Path(),
            mode=keys.take("mode", choice("prod", "dev"), default.mode),
            tags=keys.take("tags", listed(line), default.tags),
            endpoint=keys.take("endpoint", optional_address, default.endpoint),
            connections=keys.take("connections", whole(1, 10_000), default.connections),
            ca_file=keys.take("ca_file", optional_file_in(self._folder), default.ca_file),
        )
        keys.finish()
        return section if appfile is not None else None

    def _apns(self, keys: Keys, label: str) -> APNsPoolSection:
        before = len(self._source.problems)
        certfile, keyfile = self._certificate(keys)
        section = APNsPoolSection(
            name=label,
            certfile=certfile,
            keyfile=keyfile,
            key_id=keys.take("key_id", line, "", secret=True),
            team_id=keys.take("team_id", line, "", secret=True),
            p8_file=keys.take("p8_file", optional_file_in(self._folder), None, secret=True),
            mode=keys.take("mode", choice("prod", "dev"), "prod"),
            default_topic=keys.take("default_topic", line, ""),
            tags=keys.take("tags", listed(line), ()),
            endpoint=keys.take("endpoint", optional_address, ""),
            use_2197=keys.take("use_2197", boolean, False),
            connections=keys.take("connections", whole(1, 1000), 1),
            ca_file=keys.take("ca_file", optional_file_in(self._folder), None),
        )
        token = (section.key_id, section.team_id, section.p8_file)
        if len(self._source.problems) == before:
            if certfile is not None and any(token):
                keys.problem("", "has a certificate and a token key; only one of the two")
            elif certfile is None and not all(token):
                keys.problem("", "needs certfile and keyfile, or key_id, team_id and p8_file")
        keys.finish()
        return section

    def _webpush(self, keys: Keys, label: str) -> WebPushPoolSection | None:
        default = WebPushPoolSection(label, Path(), "")
        key_file = keys.demand(
            "vapid_key_file",
            file_in(self._folder),
            "make one: openssl ecparam -name prime256v1 -genkey -noout -out FILE",
        )
        subject = keys.demand("subject", _contact, "mailto:ADDRESS or https://... where you are reached")
        section = WebPushPoolSection(
            name=label,
            vapid_key_file=key_file or Path(),
            subject=subject or "",
            mode=keys.take("mode", choice("prod", "dev"), default.mode),
            tags=keys.take("tags", listed(line), default.tags),
            allowed_hosts=keys.take("allowed_hosts", listed(line), default.allowed_hosts),
            connections=keys.take("connections", whole(1, 10_000), default.connections),
            ca_file=keys.take("ca_file", optional_file_in(self._folder), default.ca_file),
        )
        keys.finish()
        return section if key_file is not None and subject is not None else None

    def _sandbox(self, keys: Keys) -> SandboxSection:
        default = SandboxSection()
        services = keys.take("services", listed(choice("fcm", "apns", "webpush")), default.services)
        section = SandboxSection(
            services=tuple(service for service in services if service not in self._off),
            capacity=keys.take("capacity", whole(1, MANY), default.capacity),
        )
        keys.finish()
        return section

    def _admin(self) -> AdminSection:
        keys, default = self._keys("admin"), AdminSection()
        section = AdminSection(
            password=keys.take("password", line, default.password, secret=True),
            metrics=keys.take("metrics", boolean, default.metrics),
        )
        keys.finish()
        return section

    def _limits(self) -> LimitsSection:
        keys, default = self._keys("limits"), LimitsSection()
        section = LimitsSection(
            c2s_stanzas_per_second=keys.take(
                "c2s_stanzas_per_second", whole(0, MANY), default.c2s_stanzas_per_second
            ),
            s2s_stanzas_per_second=keys.take(
                "s2s_stanzas_per_second", whole(0, MANY), default.s2s_stanzas_per_second
            ),
            component_stanzas_per_second=keys.take(
                "component_stanzas_per_second", whole(0, MANY), default.component_stanzas_per_second
            ),
            unauthenticated_timeout=keys.take(
                "unauthenticated_timeout", duration("1s", "1h"), default.unauthenticated_timeout
            ),
            connections_per_address=keys.take(
                "connections_per_address", whole(0, MANY), default.connections_per_address
            ),
            offline_messages_per_user=keys.take(
                "offline_messages_per_user", whole(0, MANY), default.offline_messages_per_user
            ),
        )
        keys.finish()
        return section


def _secret(text: str) -> str:
    if not line(text):
        raise BadValue("is empty; a secret is needed")
    return text


def _server_url(text: str) -> str:
    if text.lower().startswith("embedded:"):
        if text.lower() != EMBEDDED:
            raise BadValue("has something behind 'embedded:', which is [mongoosepush] of this file itself")
        return EMBEDDED
    return http_url(text)


def _contact(text: str) -> str:
    if not re.fullmatch(r"(mailto:|https://)[!-~]+", text):
        raise BadValue("is neither mailto:ADDRESS nor https://...")
    return text


def _push_plugin(text: str) -> str:
    return _installed(text, PUSH_PLUGINS, IPushPlugin, "plugin")


def _node_type(text: str) -> str:
    return _installed(text, NODE_TYPES, INodeType, "node type")


def _installed(text: str, known: tuple[str, ...], interface: Any, what: str) -> str:
    """The name of a plugin that is built in, or installed by anybody in ``twisted/plugins/``."""
    if name(text) not in known:
        known = tuple(dict.fromkeys((*known, *(plugin.name for plugin in getPlugins(interface)))))
        if text not in known:
            raise BadValue(f"is no installed {what} ({', '.join(known)}){suggestion(text, known)}")
    return text


def _hosts(domains: tuple[str, ...], least: int) -> Callable[[str], tuple[str, ...]]:
    """Domains, ``@HOST@`` in one standing for each of ``domains`` in turn."""

    def convert(text: str) -> tuple[str, ...]:
        templates = listed(str, least)(text)
        if "@HOST@" in text and not domains:
            raise BadValue("has @HOST@, and [server] domains is empty")
        hosts = [
            template.replace("@HOST@", each)
            for template in templates
            for each in (domains if "@HOST@" in template else ("",))
        ]
        return listed(domain, least)(" ".join(hosts))

    return convert


def _optional(parse: Callable[[str], str]) -> Callable[[str], str]:
    """What ``parse`` takes, or nothing."""
    return lambda text: parse(text) if text else ""


def _is_name(text: str) -> bool:
    try:
        name(text)
    except BadValue:
        return False
    return True


def _split_twice(section: str) -> tuple[str, str, str]:
    """``mongoosepush:fcm:default`` to its head, a colon and its name."""
    first, second, rest = section.split(":", 2)
    return f"{first}:{second}", ":", rest


def _section_hint(section: str) -> str:
    """The nearest known section, with the name that the unknown one gave."""
    if section in NAMED_SECTIONS:
        return f"; did you mean [{section}:NAME]?"
    label = section.rpartition(":")[2] if ":" in section else "NAME"
    known = [*PLAIN_SECTIONS, *(f"{head}:{label}" for head in NAMED_SECTIONS)]
    if hint := suggestion(section, known, "[{}]"):
        return hint
    known = [*PLAIN_SECTIONS, *(f"{head}:NAME" for head in NAMED_SECTIONS)]
    return f"; known are {', '.join(f'[{each}]' for each in known)}"
