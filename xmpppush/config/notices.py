"""
What is accepted and does nothing in this version, said once at start.

Whoever makes one of these work removes its line here.
"""

from collections.abc import Collection, Iterator, Mapping

from xmpppush.config.sections import Config
from xmpppush.config.values import suggestion

NO_EFFECT = "has no effect in this version"
LISTENERS_AT_WORK = ("c2s",)
SECTIONS_TO_COME = ("component", "c2s", "s2s", "admin")
SECTION_HEADS_TO_COME = ("component:", "mongoosepush:fcm:", "mongoosepush:apns:")
PUSH_PLUGINS_AT_WORK, PUSH_PLUGINS_TO_COME = ("defaults",), ("enhanced", "hints")
NODE_TYPES_AT_WORK, NODE_TYPES_TO_COME = ("push",), ("flat",)


def notices_of(config: Config, given: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """
    One line for each section or key without effect.

    Args:
        given: The keys that the file sets, by section: a default is nobody's expectation.
    """
    return tuple(f"{place} {text}" for place, text in _notices(config, given))


def _notices(config: Config, given: Mapping[str, Collection[str]]) -> Iterator[tuple[str, str]]:
    idle = {f"listen:{each.name}" for each in config.listeners if each.type not in LISTENERS_AT_WORK}
    for section in given:
        if section in idle or section in SECTIONS_TO_COME or section.startswith(SECTION_HEADS_TO_COME):
            yield f"[{section}]", NO_EFFECT
    if config.auth.registration:
        yield "[auth] registration", NO_EFFECT
    if config.mod_push is not None:
        if "collapse" in given.get("mod_push", ()):
            yield "[mod_push] collapse", NO_EFFECT
        if config.mod_push.batch_window:
            yield "[mod_push] batch_window", NO_EFFECT
        if config.mod_push.virtual_pubsub_hosts:
            yield "[mod_push] virtual_pubsub_hosts", NO_EFFECT
        yield from _names(
            "[mod_push] plugin_module",
            config.mod_push.plugin_module,
            PUSH_PLUGINS_AT_WORK,
            PUSH_PLUGINS_TO_COME,
        )
    if config.mod_pubsub is not None:
        yield from _names(
            "[mod_pubsub] plugins", config.mod_pubsub.plugins, NODE_TYPES_AT_WORK, NODE_TYPES_TO_COME
        )
        if config.bridge is None:
            yield "[mod_pubsub]", "publishes to nobody: there is no [mod_push_service_mongoosepush]"
    elif config.bridge is not None:
        yield "[mod_push_service_mongoosepush]", "has nothing to send: there is no [mod_pubsub]"


def _names(
    place: str, names: tuple[str, ...], at_work: tuple[str, ...], to_come: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    for name in names:
        if name not in at_work:
            hint = "" if name in to_come else suggestion(name, (*at_work, *to_come))
            yield place, f"'{name}' {NO_EFFECT}{hint}"
