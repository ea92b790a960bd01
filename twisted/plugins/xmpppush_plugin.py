"""What twistd finds: ``twistd xmpppush``. Nothing of the package is imported until it is asked for."""

from twisted.application.service import ServiceMaker

xmpppush = ServiceMaker(
    "xmpppush",
    "xmpppush.tap",
    "XMPP push notifications (XEP-0357): XMPP server, app server, bridge and push service",
    "xmpppush",
)
