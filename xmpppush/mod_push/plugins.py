"""The push plugins: ``defaults``, and the chain that ``[mod_push] plugin_module`` makes of several."""

from collections.abc import Sequence
from typing import Any

from attrs import frozen
from twisted.plugin import IPlugin, getPlugins
from twisted.words.xish.domish import Element
from zope.interface import implementer

from xmpppush.errors import ConfigError
from xmpppush.interfaces import IPushPlugin
from xmpppush.mod_push.rules import is_important, notification_of
from xmpppush.model import Notification, Registration


@implementer(IPlugin, IPushPlugin)
@frozen
class Defaults:
    """A message with a body is a push; it names the sender and says the body."""

    name: str = "defaults"

    def should_publish(self, account: str, stanza: Element) -> bool:
        return is_important(stanza)

    def prepare_notification(self, account: str, stanza: Element) -> Notification | None:
        return notification_of(stanza)

    def publish_notification(
        self, account: str, notification: Notification, registrations: tuple[Registration, ...]
    ) -> tuple[Registration, ...]:
        return registrations


defaults = Defaults()


@implementer(IPushPlugin)
class Chain:
    """
    Several plugins as one: all have to want the push, the last one that prepares a notification of
    its own words it, and each may narrow whom it goes to. A method left out is as in ``defaults``.
    """

    def __init__(self, plugins: Sequence[Any]) -> None:
        self.name = ", ".join(plugin.name for plugin in plugins)
        self._should_publish = _methods(plugins, "should_publish")
        self._prepare_notification = _methods(plugins, "prepare_notification")[-1]
        self._publish_notification = _methods(plugins, "publish_notification")

    def should_publish(self, account: str, stanza: Element) -> bool:
        for should_publish in self._should_publish:  # noqa: SIM110 - a generator costs a microsecond
            if not should_publish(account, stanza):
                return False
        return True

    def prepare_notification(self, account: str, stanza: Element) -> Notification | None:
        notification: Notification | None = self._prepare_notification(account, stanza)
        return notification

    def publish_notification(
        self, account: str, notification: Notification, registrations: tuple[Registration, ...]
    ) -> tuple[Registration, ...]:
        for publish in self._publish_notification:
            registrations = publish(account, notification, registrations)
        return registrations


def _methods(plugins: Sequence[Any], name: str) -> list[Any]:
    return [getattr(plugin, name) for plugin in plugins if hasattr(plugin, name)] or [getattr(defaults, name)]


def chain_of(names: Sequence[str]) -> Chain:
    """
    The plugins of these names, in this order; ours and those in anybody's ``twisted/plugins/``.

    Raises:
        ConfigError: One of them is nowhere to be found.
    """
    known = {plugin.name: plugin for plugin in getPlugins(IPushPlugin)} | {defaults.name: defaults}
    missing = [name for name in names if name not in known]
    if missing:
        installed = ", ".join(sorted(known))
        raise ConfigError(
            [f"[mod_push] plugin_module: no plugin '{name}'; installed: {installed}" for name in missing]
        )
    return Chain([known[name] for name in names])
