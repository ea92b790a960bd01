"""The push plugins that are built in, and the chain that ``[mod_push] plugin_module`` makes of several."""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve, frozen
from twisted.logger import Logger
from twisted.plugin import IPlugin, getPlugins
from twisted.python.failure import Failure
from twisted.words.xish.domish import Element
from zope.interface import implementer

from xmpppush.errors import ConfigError
from xmpppush.interfaces import IPushPlugin
from xmpppush.mod_push.privacy import MESSAGE_SENDER
from xmpppush.mod_push.rules import (
    CALL_SIGNAL,
    CALL_SIGNAL_STORED,
    has_hint,
    importance_of,
    jingle_message_in,
    notification_of,
)
from xmpppush.model import Importance, Notification, Registration


@implementer(IPlugin, IPushPlugin)
@frozen
class Defaults:
    """What a person wrote is a push; it names the sender and says the body."""

    name: str = "defaults"

    def should_publish(self, account: str, stanza: Element) -> bool | Importance:
        return importance_of(stanza)

    def prepare_notification(self, account: str, stanza: Element) -> Notification | None:
        return notification_of(stanza)

    def publish_notification(
        self, account: str, notification: Notification, registrations: tuple[Registration, ...]
    ) -> tuple[Registration, ...]:
        return registrations


@implementer(IPlugin, IPushPlugin)
@frozen
class Enhanced:  # type: ignore[misc]  # what is left out is as in defaults
    """
    As ``defaults``, and at once on a broken stream (MongooseIM's plugin of this name).

    Without it what a broken stream still owes is pushed when it can be resumed no longer.
    """

    name: str = "enhanced"
    push_on_broken_stream: bool = True


@implementer(IPlugin, IPushPlugin)
@frozen
class Hints:
    """
    As ``defaults``, and calls for apps that ring by themselves (MongooseIM's plugin of this name).

    A notification of a Jingle message (XEP-0353) says which one it is, in the fields ``jingle-message``,
    ``jingle-session-id`` and ``message-sender``. Those that end or answer a call are pushes as well where
    they have a ``store`` hint, but only for registrations with the option ``silent``: everybody else
    would see a notification that somebody stopped calling.
    """

    name: str = "hints"

    def should_publish(self, account: str, stanza: Element) -> bool | Importance:
        importance = importance_of(stanza)
        if importance is CALL_SIGNAL and has_hint(stanza, "store"):
            return CALL_SIGNAL_STORED
        return importance

    def prepare_notification(self, account: str, stanza: Element) -> Notification | None:
        notification = notification_of(stanza)
        jingle = jingle_message_in(stanza)
        if jingle is None:
            return notification
        fields = {
            MESSAGE_SENDER: stanza.attributes.get("from", ""),
            _JINGLE_MESSAGE: jingle.name,
            "jingle-session-id": jingle.attributes.get("id", ""),
        }
        return evolve(notification, extra={**notification.extra, **fields})

    def publish_notification(
        self, account: str, notification: Notification, registrations: tuple[Registration, ...]
    ) -> tuple[Registration, ...]:
        if notification.extra.get(_JINGLE_MESSAGE, "propose") == "propose":
            return registrations
        return tuple(each for each in registrations if each.options.get("silent") in ("true", "1"))


_JINGLE_MESSAGE = "jingle-message"

defaults = Defaults()
BUILT_IN: Mapping[str, Any] = {plugin.name: plugin for plugin in (defaults, Enhanced(), Hints())}


@implementer(IPushPlugin)
class Chain:
    """
    Several plugins as one: all have to want the push, the last one that prepares a notification of
    its own words it, and each may narrow whom it goes to. A method left out is as in ``defaults``.
    Where one raises it is as if all of them were ``defaults``.

    Attributes:
        push_on_broken_stream: One of them asks for that.
    """

    _log = Logger()

    def __init__(self, plugins: Sequence[Any]) -> None:
        self._failures: set[type[BaseException] | None] = set()
        self.name = ", ".join(plugin.name for plugin in plugins)
        self.push_on_broken_stream = any(getattr(each, "push_on_broken_stream", False) for each in plugins)
        # With what is said for those that answer with a plain yes or no.
        self._should_publish = [
            (plugin.should_publish, Importance(True, plugin.name), Importance(False, f"plugin {plugin.name}"))
            for plugin in _with_method(plugins, "should_publish")
        ]
        self._prepare_notification = _with_method(plugins, "prepare_notification")[-1].prepare_notification
        self._publish_notification = [
            plugin.publish_notification for plugin in _with_method(plugins, "publish_notification")
        ]

    def should_publish(self, account: str, stanza: Element) -> bool | Importance:
        try:
            return self._importance(account, stanza)
        except Exception:
            self._failed()
            return importance_of(stanza)

    def _importance(self, account: str, stanza: Element) -> Importance:
        first: Importance | None = None
        for should_publish, yes, no in self._should_publish:
            answer = should_publish(account, stanza)
            if type(answer) is not Importance:
                answer = yes if answer else no
            if not answer.push:
                return answer
            if first is None or (answer.urgent and not first.urgent):
                first = answer
        assert first is not None
        return first

    def prepare_notification(self, account: str, stanza: Element) -> Notification | None:
        try:
            notification: Notification | None = self._prepare_notification(account, stanza)
        except Exception:
            self._failed()
            return notification_of(stanza)
        return notification

    def publish_notification(
        self, account: str, notification: Notification, registrations: tuple[Registration, ...]
    ) -> tuple[Registration, ...]:
        everybody = registrations
        try:
            for publish in self._publish_notification:
                registrations = publish(account, notification, registrations)
        except Exception:
            self._failed()
            return everybody
        return registrations

    def _failed(self) -> None:
        """Somebody's plugin is broken: that costs its own effect, and no message."""
        failure = Failure()
        if failure.type not in self._failures:
            self._failures.add(failure.type)
            self._log.failure(
                "a plugin of {plugins} failed; 'defaults' decides instead, and this is not said again",
                failure,
                plugins=self.name,
            )


def _with_method(plugins: Sequence[Any], name: str) -> list[Any]:
    return [plugin for plugin in plugins if hasattr(plugin, name)] or [defaults]


def chain_of(names: Sequence[str]) -> Chain:
    """
    The plugins of these names, in this order; ours and those in anybody's ``twisted/plugins/``.

    Raises:
        ConfigError: One of them is nowhere to be found.
    """
    known = {plugin.name: plugin for plugin in getPlugins(IPushPlugin)} | dict(BUILT_IN)
    missing = [name for name in names if name not in known]
    if missing:
        installed = ", ".join(sorted(known))
        raise ConfigError(
            [f"[mod_push] plugin_module: no plugin '{name}'; installed: {installed}" for name in missing]
        )
    return Chain([known[name] for name in names])
