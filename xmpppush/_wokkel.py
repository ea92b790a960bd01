"""
The one door to Wokkel: what we use of it, and the shim it needs on today's Twisted.

Wokkel 18.0.0 (2018) is its last release. It asks for ``twisted.python.compat._PY3`` (gone since
Twisted 21.2.0), calls deprecated ``iteritems`` and friends with a warning each time, and keeps every
JID it ever saw in ``internJID`` (338 bytes each, chosen by strangers). All three are put right here,
before and after its modules are imported. ``wokkel.component`` imports the reactor, so this module
is imported by ``makeService`` and later only, never by the plugin file.
"""

import importlib
import sys
import warnings
from functools import lru_cache
from types import ModuleType
from typing import Any

from twisted.python import compat
from twisted.words.protocols.jabber import jid as _jid


@lru_cache(maxsize=16384)
def bounded_intern_jid(text: str) -> _jid.JID:
    """The `JID` of ``text``, as ``internJID`` makes it, out of a cache that forgets."""
    return _jid.JID(text)


_QUIET: dict[str, Any] = {
    "iteritems": lambda mapping: iter(mapping.items()),
    "itervalues": lambda mapping: iter(mapping.values()),
    "unicode": str,
    "StringType": str,
}


def _load(name: str) -> ModuleType:
    module = importlib.import_module(name)
    for alias, replacement in _QUIET.items():
        if alias in vars(module):
            setattr(module, alias, replacement)
    return module


if not hasattr(compat, "_PY3"):
    compat._PY3 = True  # type: ignore[attr-defined]
if "wokkel" in sys.modules:
    raise ImportError("wokkel was imported before xmpppush._wokkel: import it from there")
_jid.internJID = bounded_intern_jid

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    compat_ = _load("wokkel.compat")
    iwokkel = _load("wokkel.iwokkel")
    subprotocols = _load("wokkel.subprotocols")
    generic = _load("wokkel.generic")
    data_form = _load("wokkel.data_form")
    disco = _load("wokkel.disco")
    ping = _load("wokkel.ping")
    pubsub = _load("wokkel.pubsub")
    component = _load("wokkel.component")

XMPPHandler = subprotocols.XMPPHandler
IQHandlerMixin = subprotocols.IQHandlerMixin
IDisco = iwokkel.IDisco


class InternalComponent(component.InternalComponent):  # type: ignore[name-defined]
    """Wokkel's, whose handlers may still have an answer when it has stopped: that has nowhere to go."""

    def send(self, obj: Any) -> None:
        if self.xmlstream is not None:
            super().send(obj)


Router = component.Router
DiscoHandler = disco.DiscoHandler
DiscoFeature = disco.DiscoFeature
DiscoIdentity = disco.DiscoIdentity
DiscoItem = disco.DiscoItem
PingHandler = ping.PingHandler
VersionHandler = generic.VersionHandler
FallbackHandler = generic.FallbackHandler
XmlPipe = generic.XmlPipe
PubSubService = pubsub.PubSubService
PubSubResource = pubsub.PubSubResource
PubSubRequest = pubsub.PubSubRequest
