"""Which pool takes a notification, and what pools have in common."""

import json

import pytest
import pytest_twisted
from twisted.internet import reactor

from xmpppush.config.sections import APNsPoolSection, FCMPoolSection, MongoosePushSection, WebPushPoolSection
from xmpppush.errors import ConfigError, Refused
from xmpppush.mongoosepush.pools import Pools, make_pools
from xmpppush.testing.pools import CHECKS, FakePool
from xmpppush.testing.providers import make_apns_credentials, make_fcm_credentials, make_test_authority
from xmpppush.testing.providers.credentials import make_vapid_key

ALERT = {"alert": {"title": "t", "body": "b"}}


def pool(name, *tags, service="apns", mode="prod"):
    return FakePool(name, service, mode, frozenset(tags))


def chosen(pools, service="apns", tags_optional=False, **request):
    found = Pools(pools, tags_optional).pool_for(service, {**ALERT, **request})
    return found.name if found else None


ALL = (pool("ab", "a", "b"), pool("one"), pool("two"), pool("a", "a"), pool("dev", mode="dev"))


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        ({}, "one"),
        ({"mode": "prod", "tags": []}, "one"),
        ({"mode": "dev"}, "dev"),
        ({"tags": ["a"]}, "a"),
        ({"tags": ["b"]}, "ab"),
        ({"tags": ["b", "a", "a"]}, "ab"),
        ({"tags": ["a", "c"]}, None),
        ({"tags": ["a"], "mode": "dev"}, None),
    ],
)
def test_the_pool_that_fits_best(request_, name):
    """Service, mode and all tags; then the fewest other tags; then the order of the file."""
    assert chosen(ALL, **request_) == name


def test_tags_reserve_a_pool():
    """Who names no tag gets no pool with tags, unless those are optional."""
    tagged = (pool("ab", "a", "b"), pool("c", "c"))
    assert chosen(tagged) is None
    assert chosen(tagged, tags_optional=True) == "c"
    assert chosen(ALL, tags_optional=True) == "one"


def test_services_are_those_of_the_pools():
    """A service without pool is nobody's here; another provider may have it."""
    pools = Pools([pool("a"), pool("f", service="fcm"), pool("b")])
    assert pools.services == ("apns", "fcm")
    assert Pools([]).services == ()


def test_no_pool_is_a_refusal():
    """The word that the API knows; nothing is sent."""
    assert isinstance(failure_of(Pools([pool("a")]).push("apns", "tok", {**ALERT, "mode": "dev"})), Refused)


def failure_of(deferred):
    found = []
    deferred.addErrback(lambda failure: found.append(failure.value))
    return found[0]


def test_pools_start_and_stop_with_the_service():
    """All of them, also when one fails to stop."""
    first, second = pool("a"), pool("b")
    second.result = None
    pools = Pools([first, second])
    pools.startService()
    assert (first.started, second.started) == (True, True)
    stopped = []
    pools.stopService().addCallback(stopped.append)
    assert stopped == [None]
    assert (first.started, second.started) == (False, False)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("credentials")
    authority = make_test_authority()
    apns = make_apns_credentials(authority)
    (folder / "ca.pem").write_bytes(authority.ca)
    (folder / "token.p8").write_bytes(apns.p8)
    account = make_fcm_credentials().service_account("https://127.0.0.1:1/token")
    (folder / "account.json").write_bytes(account)
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = make_vapid_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "vapid.pem").write_bytes(key)
    return folder


def a_section(files, **changes):
    """A push service with one pool of each kind, whose providers are not there."""
    apns = APNsPoolSection(
        "a",
        key_id="K" * 10,
        team_id="T" * 10,
        p8_file=files / "token.p8",
        endpoint="127.0.0.1:1",
        tags=("x",),
    )
    fcm = FCMPoolSection("f", files / "account.json", endpoint="127.0.0.1:1", mode="dev")
    webpush = WebPushPoolSection("w", files / "vapid.pem", "mailto:a@b", allowed_hosts=("127.0.0.1:1",))
    return MongoosePushSection(
        **{"fcm": {"f": fcm}, "apns": {"a": apns}, "webpush": {"w": webpush}, **changes}
    )


@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:1"])
def test_pools_are_made_of_their_sections(files, proxy):
    """One for each, with its name, mode and tags."""
    pools = make_pools(a_section(files, proxy=proxy), reactor)
    assert [(each.service, each.name, each.mode, each.tags) for each in pools] == [
        ("apns", "a", "prod", {"x"}),
        ("fcm", "f", "dev", frozenset()),
        ("webpush", "w", "prod", frozenset()),
    ]


def test_all_bad_credentials_are_told_at_once(files, tmp_path):
    """A line for each pool, with section, key and file."""
    (tmp_path / "bad.json").write_text(json.dumps({"type": "authorized_user"}))
    bad = tmp_path / "bad.json"
    section = a_section(
        files,
        fcm={"f": FCMPoolSection("f", bad)},
        apns={"a": APNsPoolSection("a", key_id="k", team_id="t", p8_file=bad)},
    )
    with pytest.raises(ConfigError) as raised:
        make_pools(section, reactor)
    first, second = raised.value.problems
    assert first.startswith(f"[mongoosepush:apns:a] p8_file: {bad}: ")
    assert second.startswith(f"[mongoosepush:fcm:f] appfile: {bad}: ")


def test_no_pool_needs_no_library(monkeypatch):
    """A service with a sandbox alone loads neither h2 nor http_ece."""
    monkeypatch.setitem(__import__("sys").modules, "xmpppush.mongoosepush.apns", None)
    monkeypatch.setitem(__import__("sys").modules, "xmpppush.mongoosepush.webpush", None)
    assert make_pools(MongoosePushSection(), reactor).services == ()


@pytest.mark.parametrize("kind", ["apns", "fcm", "webpush", "fake"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest_twisted.ensureDeferred
async def test_contract(check, kind, files):
    """The same of all pools."""
    pools = [*make_pools(a_section(files), reactor), FakePool("fake", "fcm")]
    await check({"apns": pools[0], "fcm": pools[1], "webpush": pools[2], "fake": pools[3]}[kind])
