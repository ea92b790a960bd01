"""What xmpppush finds. Twisted imports this file in every program that looks for plugins: keep it light."""

from twisted.plugin import IPlugin
from zope.interface import implementer

from xmpppush.interfaces import INodeType


@implementer(IPlugin, INodeType)
class NoticeBoard:
    """A type whose nodes keep items; what it does not list as a feature, its nodes refuse."""

    name = "notice-board"
    pushes = False
    features = (
        "access-authorize",
        "access-open",
        "config-node",
        "create-nodes",
        "delete-items",
        "delete-nodes",
        "manage-subscriptions",
        "persistent-items",
        "publish",
        "retrieve-items",
        "subscribe",
    )

    @property
    def defaults(self):
        from noticeboard import notices

        return notices.DEFAULTS

    def check_publish(self, node, publish):
        from xmpppush.errors import InvalidPayload

        raise InvalidPayload("a notice board takes no push notifications")

    def check_item(self, node, publisher, payload):
        from noticeboard import notices

        notices.check(payload)


notice_board = NoticeBoard()
