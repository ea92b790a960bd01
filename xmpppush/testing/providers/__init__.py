"""
Emulators of FCM, APNs and Web Push services, for our own tests and for users' CI.

In a test::

    apns = APNsEmulator()
    port = await apns.listen(reactor)
    apns.faults.add("goaway after=100", "Unregistered token=dead*")
    ...  # a pool with apns.endpoint and a ca_file of apns.authority.ca
    assert [each.status for each in apns.received] == ...
    await apns.stop()

As a process of its own: ``xmpppush emulate apns --help``.
"""

from xmpppush.testing.providers.apns import APNsEmulator, Device, sign_token
from xmpppush.testing.providers.credentials import (
    APNsCredentials,
    Authority,
    FCMCredentials,
    make_apns_credentials,
    make_fcm_credentials,
    make_test_authority,
)
from xmpppush.testing.providers.faults import BadFault, Fault, Faults
from xmpppush.testing.providers.fcm import FCMEmulator, sign_assertion
from xmpppush.testing.providers.webpush import Subscription, WebPushEmulator
from xmpppush.testing.providers.wire import Received

__all__ = [
    "APNsCredentials",
    "APNsEmulator",
    "Authority",
    "BadFault",
    "Device",
    "FCMCredentials",
    "FCMEmulator",
    "Fault",
    "Faults",
    "Received",
    "Subscription",
    "WebPushEmulator",
    "make_apns_credentials",
    "make_fcm_credentials",
    "make_test_authority",
    "sign_assertion",
    "sign_token",
]
