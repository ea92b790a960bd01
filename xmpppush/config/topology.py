"""The configuration as an operator reads it: what ``xmpppush check-config`` prints. No secrets."""

from collections.abc import Iterator
from pathlib import Path

from xmpppush.config.endpoints import Endpoint, parse_server_endpoint
from xmpppush.config.sections import EMBEDDED, AppSection, Config, ListenSection, TLSSection
from xmpppush.config.values import BadValue


def describe(config: Config) -> list[str]:
    """The effective topology: domains, listeners, roles, and what goes where; a line each."""
    return list(_lines(config))


def _lines(config: Config) -> Iterator[str]:
    yield f"configuration   {config.path}"
    yield f"data            {config.server.data_dir}"
    url = config.storage.url
    yield f"storage         {url if url.startswith('sqlite:') else 'PostgreSQL'}"
    yield f"domains         {', '.join(config.server.domains) or 'none'}"
    yield f"certificate     {_certificate(config.tls)}"
    for domain, tls in config.tls_domains.items():
        yield f"certificate     {_certificate(tls)} (for {domain})"
    for listener in config.listeners:
        yield f"listener        {_listener(config, listener)}"
    if not config.listeners:
        yield "listener        none"
    for component in config.components:
        yield f"component       {component.jid}, attaches to {component.endpoint}"
    yield f"mod_push        {_mod_push(config)}"
    yield f"mod_pubsub      {_mod_pubsub(config)}"
    for app in config.apps.values():
        yield f"app             {_app(config, app)}"
    yield f"bridge          {_bridge(config)}"
    for pool in config.http_connections.values():
        if pool.server == EMBEDDED:
            yield f"http pool       {pool.name}: none, [mongoosepush] is in this process"
            continue
        if pool.server.startswith("http:"):
            trust = "no TLS"
        elif not pool.verify:
            trust = "TLS, certificate NOT verified"
        else:
            trust = f"TLS, trusts {pool.ca_file or 'the system store'}"
        yield f"http pool       {pool.name}: {pool.server} ({trust}), {pool.connections} idle at the most"
    yield f"mongoosepush    {_mongoosepush(config)}"


def _certificate(tls: TLSSection) -> str:
    return str(tls.certfile) if tls.certfile else "generated"


def _listener(config: Config, listener: ListenSection) -> str:
    name = listener.type if listener.name == listener.type else f"{listener.type} ({listener.name})"
    text = f"{name} on {listener.endpoint}, tls {listener.tls}"
    endpoint = _parsed(listener.endpoint)
    exposed = listener.tls in ("none", "optional") and endpoint is not None and not endpoint.is_loopback
    if listener.type in ("c2s", "websocket") and exposed and config.auth.allow_plain_without_tls:
        text += "; passwords may cross the network in clear text"
    if listener.type == "component":
        text += f"; for {', '.join(listener.secrets)}"
        text += "; stanzas cross the network in clear text" if exposed else ""
    if listener.type == "http" and not config.admin.password:
        text += "; all but /health for this machine alone"
    elif listener.type == "http" and exposed:
        text += "; [admin] password may cross the network in clear text"
    return text


def _mod_push(config: Config) -> str:
    if config.mod_push is None:
        return "off"
    if not config.server.domains:
        return "off, for want of a domain"
    hidden = [
        word
        for word, shown in (
            ("body", config.mod_push.include_body),
            ("sender", config.mod_push.include_sender),
        )
        if not shown
    ]
    without = f", without {' and '.join(hidden)}" if hidden else ""
    return f"on: {', '.join(config.mod_push.plugin_module)}; notifies when {config.mod_push.notify}{without}"


def _mod_pubsub(config: Config) -> str:
    if config.mod_pubsub is None:
        return "off"
    if config.bridge is None:
        return "off, for want of a bridge"
    return f"on: {', '.join(config.mod_pubsub.hosts)}; node types {', '.join(config.mod_pubsub.plugins)}"


def _app(config: Config, app: AppSection) -> str:
    ways = [("p2", app.p2), ("appserver", app.appserver), ("tigase", app.tigase), ("fpush", app.push_module)]
    pool = app.pool_name or (config.bridge.pool_name if config.bridge else "none")
    known = ", ".join(name for name, given in ways if given)
    return f"{app.name}: {app.service} by pool {pool}; registers by {known}"


def _bridge(config: Config) -> str:
    if config.bridge is None:
        return "off"
    pool = config.http_connections[config.bridge.pool_name]
    return f"on: MongoosePush {config.bridge.api_version} at {pool.server} (pool {pool.name})"


def _mongoosepush(config: Config) -> str:
    section = config.mongoosepush
    if section is None:
        return "off"
    pools = [
        f"{service} {name}"
        for service, named in (("fcm", section.fcm), ("apns", section.apns), ("webpush", section.webpush))
        for name in named
    ]
    if section.sandbox is not None:
        pools.append(f"sandbox for {', '.join(section.sandbox.services) or 'nothing'}")
    own = TLSSection(section.certfile, section.keyfile)
    endpoint = _parsed(section.endpoint)
    secure = f"certificate {_certificate(own)}" if endpoint is None or endpoint.has_tls else "no TLS"
    text = f"on: {section.endpoint}, {secure}; {'; '.join(pools) or 'no pool: it can deliver nothing'}"
    exposed = endpoint is None or not endpoint.is_loopback
    return f"{text}; no api_keys: whoever reaches it can send" if exposed and not section.api_keys else text


def _parsed(text: str) -> Endpoint | None:
    try:
        return parse_server_endpoint(text, Path())
    except BadValue:
        return None
