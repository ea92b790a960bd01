"""A ``[listen:NAME]`` on the real reactor: its port, and whether it is there."""

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.web.resource import Resource

from xmpppush.admin.site import AdminFactory
from xmpppush.certificates import CertificateStore
from xmpppush.config.sections import ListenSection
from xmpppush.tap import Listener


@pytest_twisted.ensureDeferred
async def test_it_knows_whether_it_is_bound(tmp_path):
    """Before the start, while it listens, when its port went away, and behind the stop."""
    section = ListenSection("http", "http", "tcp:0:interface=127.0.0.1", "none")
    listener = Listener(section, AdminFactory(Resource(), reactor), CertificateStore(tmp_path), reactor)
    assert not listener.bound
    listener.startService()
    assert listener.bound
    assert listener.address[0] == "127.0.0.1"
    await maybeDeferred(listener._port.stopListening)
    assert not listener.bound
    await listener.stopService()


@pytest_twisted.ensureDeferred
async def test_direct_tls_without_a_domain(tmp_path):
    """A push service alone still has a certificate for its operator's page."""
    store = CertificateStore(tmp_path)
    section = ListenSection("http", "http", "tcp:0:interface=127.0.0.1", "direct")
    listener = Listener(section, AdminFactory(Resource(), reactor), store, reactor)
    listener.startService()
    assert store.enddates().keys() == {"localhost"}
    await listener.stopService()
