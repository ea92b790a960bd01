"""
What is accepted and does nothing in this version, or is not safe, said once at start.

Whoever makes one of these work removes its line here.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from xmpppush.config.endpoints import is_exposed
from xmpppush.config.sections import Config, MongoosePushSection

NO_EFFECT = "has no effect in this version"
LISTENERS_AT_WORK = ("c2s", "component", "http")
SECTIONS_TO_COME = ("s2s",)
SECTION_HEADS_TO_COME: tuple[str, ...] = ()
PUSH_PLUGINS = ("defaults", "enhanced", "hints")
NODE_TYPES = ("push", "flat")


def notices_of(config: Config, given: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """
    One line for each section or key without effect, or with one that the operator may not expect.

    Args:
        given: The keys that the file sets, by section: a default is nobody's expectation.
    """
    return tuple(f"{place} {text}" for place, text in _notices(config, given))


def _notices(config: Config, given: Mapping[str, Collection[str]]) -> Iterator[tuple[str, str]]:
    idle = {f"listen:{each.name}" for each in config.listeners if each.type not in LISTENERS_AT_WORK}
    for section in given:
        if section in idle or section in SECTIONS_TO_COME or section.startswith(SECTION_HEADS_TO_COME):
            yield f"[{section}]", NO_EFFECT
    attached = {domain for listener in config.listeners for domain in listener.secrets}
    is_alone = not config.server.domains and (config.mod_pubsub is None or config.bridge is None)
    for listener in config.listeners:
        if listener.type == "component" and is_alone and len(attached) < 2:
            yield (
                f"[listen:{listener.name}]",
                "has no effect: there is nobody here to talk to but the component",
            )
        if listener.type == "component" and listener.tls == "none" and is_exposed(listener.endpoint):
            yield (
                f"[listen:{listener.name}]",
                "has no TLS and is not on loopback: all that components send and get crosses the network in"
                " clear text",
            )
    if "admin" in given and not any(each.type == "http" for each in config.listeners):
        yield "[admin]", "has no effect without a listener of type http"
    if config.auth.registration:
        yield "[auth] registration", NO_EFFECT
    if config.mod_pubsub is None or config.bridge is None:
        for name in config.apps:
            yield f"[app:{name}]", "has no effect without [mod_pubsub] and [mod_push_service_mongoosepush]"
    if config.mod_push is not None:
        if config.mod_push.virtual_pubsub_hosts and config.bridge is None:
            yield (
                "[mod_push] virtual_pubsub_hosts",
                "has no effect without [mod_push_service_mongoosepush]",
            )
        if not config.server.domains:
            yield "[mod_push]", "has no effect without a served domain"
    if config.mongoosepush is not None:
        yield from _idle_pools(config.mongoosepush)
    hosts = config.mod_pubsub.hosts if config.mod_pubsub is not None else ()
    for component in config.components:
        if component.jid not in hosts:
            place = f"[component:{component.name}]" if component.name else "[component]"
            yield place, f"has no effect: {component.jid} is not among [mod_pubsub] host"
    if config.mod_pubsub is not None:
        if config.bridge is None:
            yield "[mod_pubsub]", "has no effect without [mod_push_service_mongoosepush]"
    elif config.bridge is not None and not (config.mod_push and config.mod_push.virtual_pubsub_hosts):
        yield "[mod_push_service_mongoosepush]", "has no effect without [mod_pubsub]"


def _idle_pools(section: MongoosePushSection) -> Iterator[tuple[str, str]]:
    """Of several pools that a notification fits equally well the first takes it."""
    pools: dict[str, Mapping[str, Any]] = {
        "fcm": section.fcm,
        "apns": section.apns,
        "webpush": section.webpush,
    }
    for service, named in pools.items():
        first: dict[tuple[str, frozenset[str]], str] = {}
        for pool in named.values():
            taken_by = first.setdefault((pool.mode, frozenset(pool.tags)), pool.name)
            if taken_by != pool.name:
                yield (
                    f"[mongoosepush:{service}:{pool.name}]",
                    f"has no effect: [mongoosepush:{service}:{taken_by}] goes first, its mode and tags"
                    " are the same",
                )
        if named and section.sandbox is not None and service in section.sandbox.services:
            yield (
                f"[mongoosepush:sandbox] services '{service}'",
                f"has no effect: [mongoosepush:{service}:{next(iter(named))}] sends those",
            )
