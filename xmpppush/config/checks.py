"""What the sections ask of each other, once each of them is right by itself."""

from collections.abc import Collection, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from xmpppush.config.endpoints import Endpoint, parse_server_endpoint
from xmpppush.config.sections import EMBEDDED, AppSection, Config
from xmpppush.config.values import BadValue, suggestion

POOLS = ("mongoosepush:fcm:", "mongoosepush:apns:", "mongoosepush:webpush:")

Problem = tuple[str, str]
"""A place, such as ``[mod_push] workers``, and what is wrong there."""


def problems_between(config: Config, sections: Collection[str]) -> Iterator[Problem]:
    """
    Every contradiction between sections.

    Args:
        sections: The names of all sections of the file, also of those that are no part of ``config``.
    """
    yield from _lonely_pools(sections)
    yield from _domains(config)
    yield from _bridge(config)
    yield from _apps(config)
    yield from _virtual_hosts(config)
    yield from _passwords(config)
    yield from _accounts(config)
    yield from _ports(config)


def _lonely_pools(sections: Collection[str]) -> Iterator[Problem]:
    if "mongoosepush" not in sections:
        for section in sections:
            if section == "mongoosepush:sandbox" or section.startswith(POOLS):
                yield f"[{section}]", "needs a [mongoosepush] section to belong to"


def _domains(config: Config) -> Iterator[Problem]:
    served = config.server.domains
    hosts = config.mod_pubsub.hosts if config.mod_pubsub else ()
    for listener in config.listeners:
        if listener.type in ("c2s", "websocket") and not served:
            yield f"[listen:{listener.name}]", "clients need a domain, and [server] domains is empty"
        for domain in listener.secrets:
            if domain in (*served, *hosts):
                yield f"[listen:{listener.name}] secret.{domain}", "this server serves that domain itself"
            if any(domain == component.jid for component in config.components):
                yield (
                    f"[listen:{listener.name}] secret.{domain}",
                    "this process is that component itself, at another server",
                )
    for host in hosts:
        if host in served:
            yield "[mod_pubsub] host", f"'{host}' is one of [server] domains; it needs a name of its own"
    for domain in config.tls_domains:
        if domain not in (*served, *hosts):
            hint = suggestion(domain, (*served, *hosts), "[tls:{}]")
            yield f"[tls:{domain}]", f"not a domain that is served here{hint}"
    for first, second in combinations(config.components, 2):
        if first.jid == second.jid:
            yield f"[component:{second.name}] jid", f"'{second.jid}' is attached by another section already"


def _bridge(config: Config) -> Iterator[Problem]:
    for pool in config.http_connections.values():
        if pool.server == EMBEDDED and config.mongoosepush is None:
            yield f"[http_connections:{pool.name}] server", "'embedded:' needs a [mongoosepush] section"
    if config.bridge is None:
        return
    pools, name = config.http_connections, config.bridge.pool_name
    if name and name not in pools:
        hint = suggestion(name, pools) or (
            f"; there is {', '.join(pools)}" if pools else "; there is no [http_connections:NAME] at all"
        )
        yield "[mod_push_service_mongoosepush] pool_name", f"no section [http_connections:{name}]{hint}"
    if config.bridge.retry_base > config.bridge.retry_cap:
        yield "[mod_push_service_mongoosepush] retry_base", "is longer than retry_cap"


def _apps(config: Config) -> Iterator[Problem]:
    taken: dict[tuple[str, str, str], list[AppSection]] = {}
    for app in config.apps.values():
        place = f"[app:{app.name}]"
        if app.pool_name and app.pool_name not in config.http_connections:
            hint = suggestion(app.pool_name, config.http_connections)
            yield f"{place} pool_name", f"no section [http_connections:{app.pool_name}]{hint}"
        if not (app.p2 or app.appserver or app.tigase or app.push_module):
            yield place, "no device could register; set one of p2, appserver, tigase, push_module"
        # Tigase's and fpush's names stand alone, the others' come with a service.
        names = [("p2", app.service, each) for each in app.p2]
        names += [("appserver", app.service, "*")] if app.appserver else []
        names += [("tigase", "", each) for each in app.tigase]
        names += [("push_module", "", each) for each in app.push_module]
        for way, service, each in names:
            for other in taken.setdefault((way, service, each), []):
                if not app.hosts or not other.hosts or set(app.hosts) & set(other.hosts):
                    yield f"{place} {way}", f"'{each}' means [app:{other.name}] already"
            taken[way, service, each].append(app)


def _virtual_hosts(config: Config) -> Iterator[Problem]:
    if config.mod_push is None:
        return
    hosts = config.mod_pubsub.hosts if config.mod_pubsub else ()
    for host in config.mod_push.virtual_pubsub_hosts:
        attached = (domain for listener in config.listeners for domain in listener.secrets)
        ours = (component.jid for component in config.components)
        if host in (*config.server.domains, *hosts, *ours, *attached):
            yield "[mod_push] virtual_pubsub_hosts", f"'{host}' is served by itself already"


def _passwords(config: Config) -> Iterator[Problem]:
    if config.auth.mechanisms != ("PLAIN",) or config.auth.allow_plain_without_tls:
        return
    for listener in config.listeners:
        if listener.type in ("c2s", "websocket") and listener.tls == "none":
            yield (
                f"[listen:{listener.name}] tls",
                "'none' leaves no way to log in: the only mechanism, PLAIN, needs TLS or "
                "[auth] allow_plain_without_tls = yes",
            )


def _accounts(config: Config) -> Iterator[Problem]:
    """One account in two pools that differ in nothing a notification could ask for is a slip of the pen."""
    if config.mongoosepush is None:
        return
    section = config.mongoosepush
    used: dict[tuple[object, ...], str] = {}
    accounts: list[tuple[str, str, Any, tuple[object, ...]]] = [
        *(
            (f"mongoosepush:fcm:{pool.name}", "appfile", pool, (pool.appfile,))
            for pool in section.fcm.values()
        ),
        *(
            (f"mongoosepush:apns:{pool.name}", "", pool, (pool.certfile, pool.p8_file, pool.default_topic))
            for pool in section.apns.values()
        ),
    ]
    for place, key, pool, account in accounts:
        other = used.setdefault((place.split(":")[1], pool.mode, frozenset(pool.tags), *account), place)
        if other != place:
            yield (
                f"[{place}] {key}".rstrip(),
                f"[{other}] has the same account, mode and tags; leave one out",
            )


def _ports(config: Config) -> Iterator[Problem]:
    texts = [(f"listen:{listener.name}", listener.endpoint) for listener in config.listeners]
    if config.mongoosepush is not None:
        texts.append(("mongoosepush", config.mongoosepush.endpoint))
    endpoints = [(section, endpoint) for section, text in texts if (endpoint := _parsed(text)) is not None]
    for (first, mine), (second, theirs) in combinations(endpoints, 2):
        if mine.clashes_with(theirs):
            yield f"[{second}] endpoint", f"takes the same port as [{first}]"


def _parsed(text: str) -> Endpoint | None:
    try:
        return parse_server_endpoint(text, Path())
    except BadValue:  # only a file that went away since it was checked
        return None
