"""The sandbox provider."""

import pytest
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from zope.interface.verify import verifyObject

from xmpppush.config.sections import SandboxSection
from xmpppush.errors import Refused
from xmpppush.interfaces import IPushProvider
from xmpppush.model import SandboxNotification
from xmpppush.mongoosepush.health import IHasPools
from xmpppush.mongoosepush.sandbox import Sandbox

REQUEST = {"alert": {"title": "t", "body": "secret text"}}


@pytest.fixture
def sandbox():
    clock = Clock()
    clock.advance(1000.0)
    return Sandbox(SandboxSection(capacity=2), clock)


def push(sandbox, device_id="tok", service="fcm", request=REQUEST):
    results = []
    sandbox.push(service, device_id, request).addBoth(results.append)
    return results[0]


def test_it_is_a_push_provider(sandbox):
    """All methods of its contracts are there."""
    verifyObject(IPushProvider, sandbox)
    verifyObject(IHasPools, sandbox)


def test_it_keeps_what_the_phone_would_get(sandbox):
    """The provider's own structure, with device and time."""
    assert push(sandbox, request={**REQUEST, "mode": "dev"}) is None
    push(sandbox, service="apns")
    fcm, apns = sandbox.notifications
    assert fcm == SandboxNotification("fcm", "tok", "dev", fcm.content, 1000.0)
    assert fcm.content["message"]["android"]["notification"] == {"title": "t", "body": "secret text"}
    assert apns.mode == "prod"
    assert apns.content["payload"] == {"aps": {"alert": {"title": "t", "body": "secret text"}}}
    assert apns.content["headers"] == {"apns-push-type": "alert"}


def test_only_the_last_ones_are_kept(sandbox):
    """``capacity`` bounds it."""
    for device_id in ("1", "2", "3"):
        push(sandbox, device_id)
    assert [each.device_id for each in sandbox.notifications] == ["2", "3"]


def test_subscribers_hear_of_each(sandbox):
    """Until they end it; ending it twice does no harm."""
    heard = []
    unsubscribe = sandbox.subscribe(heard.append)
    push(sandbox)
    unsubscribe()
    unsubscribe()
    push(sandbox)
    assert len(heard) == 1


def test_a_failing_subscriber_harms_nobody(sandbox):
    """The push succeeds, the others hear of it, and the fault is logged."""
    heard, log = [], []
    sandbox.subscribe(lambda notification: 1 / 0)
    sandbox.subscribe(heard.append)
    globalLogPublisher.addObserver(log.append)
    try:
        assert push(sandbox) is None
    finally:
        globalLogPublisher.removeObserver(log.append)
    assert len(heard) == 1
    assert len(log) == 1


def test_data_that_fcm_would_not_take_are_refused(sandbox):
    """As the real way out does."""
    failure = push(sandbox, request={"data": {"k": {}}})
    assert failure.check(Refused)
    assert not sandbox.notifications


def test_what_no_provider_would_take_is_not_kept(sandbox):
    """A thousand notifications of megabytes are much memory, and what is too deep no page could show."""
    deep = []
    for _ in range(500):
        deep = [deep]
    assert (
        str(push(sandbox, service="apns", request={"data": {"k": "x" * 70_000}}).value) == "payload_too_large"
    )
    assert str(push(sandbox, service="apns", request={"data": {"k": deep}}).value) == "invalid_request"
    assert not sandbox.notifications


def test_repr_shows_no_secret(sandbox):
    """Neither token nor text."""
    push(sandbox, "token-of-alice")
    assert "alice" not in repr(sandbox.notifications)
    assert "secret" not in repr(sandbox.notifications)
