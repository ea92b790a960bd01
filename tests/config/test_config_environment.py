"""Tests for xmpppush.config.environment: MongoosePush's PUSH_* variables."""

import pytest

from xmpppush.config import load
from xmpppush.errors import ConfigError

POOLS = "[mongoosepush]\n[mongoosepush:sandbox]\n"


@pytest.fixture
def read(tmp_path):
    """Load a configuration with an environment; there is a file 'a.pem' that values can name."""
    (tmp_path / "a.pem").write_text("x")

    def read(text, **environ):
        (tmp_path / "server.ini").write_text(text)
        return load(tmp_path / "server.ini", environ)

    return read


@pytest.fixture
def problems(read):
    def problems(text, **environ):
        with pytest.raises(ConfigError) as caught:
            read(text, **environ)
        return [line.partition("server.ini: ")[2] for line in caught.value.problems]

    return problems


def test_https(read, tmp_path):
    """Address, port and certificate override the section's keys."""
    environ = {
        "PUSH_HTTPS_PORT": "443",
        "PUSH_HTTPS_BIND_ADDR": "0.0.0.0",
        "PUSH_HTTPS_CERTFILE": "a.pem",
        "PUSH_HTTPS_KEYFILE": str(tmp_path / "a.pem"),
    }
    section = read(POOLS, **environ).mongoosepush
    assert section.endpoint == "ssl:443:interface=0.0.0.0"
    assert section.certfile == section.keyfile == tmp_path / "a.pem"


def test_https_with_ipv6(read):
    """An IPv6 address is escaped as Twisted wants it."""
    assert read(POOLS, PUSH_HTTPS_BIND_ADDR="::").mongoosepush.endpoint == r"ssl:8443:interface=\:\:"


def test_fcm(read, tmp_path):
    """The environment's FCM pool is called default, and may be the file's."""
    pool = read(POOLS, PUSH_FCM_APP_FILE="a.pem", PUSH_FCM_ENDPOINT="fcm.local:4443").mongoosepush.fcm[
        "default"
    ]
    assert (pool.appfile, pool.endpoint, pool.mode) == (tmp_path / "a.pem", "fcm.local:4443", "prod")
    text = "[mongoosepush]\n[mongoosepush:fcm:default]\nappfile = nope\ntags = a b\n"
    pool = read(text, PUSH_FCM_APP_FILE="a.pem").mongoosepush.fcm["default"]
    assert (pool.appfile, pool.tags) == (tmp_path / "a.pem", ("a", "b"))


def test_apns(read, tmp_path):
    """The environment's APNs pools are prod and dev, of these modes."""
    environ = {
        "PUSH_APNS_PROD_CERT": "a.pem",
        "PUSH_APNS_PROD_KEY": "a.pem",
        "PUSH_APNS_PROD_DEFAULT_TOPIC": "org.example",
        "PUSH_APNS_PROD_USE_2197": "true",
        "PUSH_APNS_DEV_KEY_ID": "K",
        "PUSH_APNS_DEV_TEAM_ID": "T",
        "PUSH_APNS_DEV_P8_TOKEN": "a.pem",
        "PUSH_APNS_DEV_ENDPOINT": "localhost:2197",
    }
    pools = read(POOLS, **environ).mongoosepush.apns
    assert [(pool.name, pool.mode) for pool in pools.values()] == [("prod", "prod"), ("dev", "dev")]
    assert pools["prod"].certfile == tmp_path / "a.pem"
    assert (pools["prod"].default_topic, pools["prod"].use_2197) == ("org.example", True)
    assert (pools["dev"].key_id, pools["dev"].team_id, pools["dev"].p8_file) == ("K", "T", tmp_path / "a.pem")
    assert pools["dev"].endpoint == "localhost:2197"


def test_apns_credentials_replace_the_file_s(read):
    """A token key of the environment takes the place of the file's certificate."""
    text = "[mongoosepush]\n[mongoosepush:apns:prod]\ncertfile = a.pem\nkeyfile = a.pem\nmode = dev\n"
    environ = {
        "PUSH_APNS_PROD_KEY_ID": "K",
        "PUSH_APNS_PROD_TEAM_ID": "T",
        "PUSH_APNS_PROD_P8_TOKEN": "a.pem",
    }
    pool = read(text, **environ).mongoosepush.apns["prod"]
    assert (pool.certfile, pool.keyfile, pool.key_id, pool.mode) == (None, None, "K", "dev")


def test_switched_off(read):
    """A service that is off has no pool, not even one that could not be used, and no sandbox."""
    text = POOLS + "[mongoosepush:apns:prod]\ncertfile = nope\n"
    section = read(text, PUSH_APNS_ENABLED="0", PUSH_APNS_DEV_CERT="nope").mongoosepush
    assert section.apns == {}
    assert section.sandbox.services == ("fcm",)
    assert read(POOLS, PUSH_FCM_ENABLED="false", PUSH_APNS_ENABLED="1").mongoosepush.sandbox.services == (
        "apns",
    )


@pytest.mark.parametrize(("level", "ours"), [("debug", "debug"), ("warning", "warn"), ("notice", "info")])
def test_log_level(read, level, ours):
    """Elixir's levels become Twisted's."""
    assert read(POOLS, PUSH_LOGLEVEL=level).server.log_level == ours


def test_legacy_key(problems):
    """The key of an API that Google has switched off is refused, and what to use instead is said."""
    (line,) = problems(POOLS, PUSH_FCM_APP_KEY="AAAA-s3cret")
    assert line.startswith(
        "environment variable PUSH_FCM_APP_KEY: Google has switched the legacy FCM server keys off"
    )
    assert "PUSH_FCM_APP_FILE" in line
    assert "s3cret" not in line


def test_problems_name_the_variable(problems):
    """Who set the variable is not led to the file, and sees no value."""
    assert problems(
        POOLS,
        PUSH_HTTPS_BIND_ADDR="s3 cret",
        PUSH_HTTPS_CERTFILE="a.pem",
        PUSH_LOGLEVEL="s3cret",
        PUSH_FCM_ENABLED="s3cret",
        PUSH_APNS_DEV_P8_TOKEN="s3cret",
        PUSH_APNS_PROD_USE_2197="s3cret",
    ) == [
        "environment variable PUSH_FCM_ENABLED: the value is neither 'yes' nor 'no'",
        "environment variable PUSH_LOGLEVEL: the value is none of debug, info, warn, error, critical",
        "[mongoosepush] keyfile: missing; certfile is set, and the two go together",
        "environment variable PUSH_HTTPS_BIND_ADDR: the endpoint has an interface that is no address "
        r"(a ':' within it is written '\:')",
        "environment variable PUSH_APNS_PROD_USE_2197: the value is neither 'yes' nor 'no'",
        "environment variable PUSH_APNS_DEV_P8_TOKEN: the value cannot be read: No such file or directory",
    ]


def test_without_the_section_nothing_counts(read):
    """A server that only talks to another machine's MongoosePush is not configured by its environment."""
    config = read("", PUSH_FCM_APP_KEY="x", PUSH_LOGLEVEL="debug", PUSH_HTTPS_PORT="x")
    assert (config.mongoosepush, config.server.log_level) == (None, "info")


def test_empty_is_unset(read):
    """Compose files hand over variables that nobody has set."""
    environ = dict.fromkeys(
        ("PUSH_HTTPS_PORT", "PUSH_FCM_APP_KEY", "PUSH_FCM_ENABLED", "PUSH_APNS_DEV_CERT"), ""
    )
    assert read(POOLS, **environ) == read(POOLS)


def test_values_are_taken_as_they_are(problems):
    """What the environment holds is no reference to something else."""
    assert problems(POOLS, PUSH_FCM_APP_FILE="file:a.pem") == [
        "environment variable PUSH_FCM_APP_FILE: the value cannot be read: No such file or directory"
    ]
