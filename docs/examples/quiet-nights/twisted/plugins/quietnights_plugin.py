"""What xmpppush finds. Twisted imports this file in every program that looks for plugins: keep it light."""

from collections.abc import Callable
from datetime import datetime

from attrs import frozen
from twisted.plugin import IPlugin
from zope.interface import implementer

from xmpppush.interfaces import IPushPlugin


@implementer(IPlugin, IPushPlugin)
@frozen
class QuietNights:
    """The plugin; the two methods that it leaves out behave as in ``defaults``."""

    name: str = "quiet-nights"
    now: Callable[[], datetime] = datetime.now

    def should_publish(self, account, stanza):
        from quietnights import nights

        return nights.at(self.now(), stanza)


quiet_nights = QuietNights()
