"""[app:NAME]: which apps there are, and which requests mean which."""

import pytest

from xmpppush.config import load
from xmpppush.config.topology import describe
from xmpppush.errors import ConfigError

REST = """
[server]
domains = a.example, b.example
[mod_pubsub]
[http_connections:pool]
server = http://localhost:1
[mod_push_service_mongoosepush]
pool_name = pool
"""


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "server.ini"
        path.write_text(REST + text)
        return load(path, {})

    return read


@pytest.fixture
def problems(read, tmp_path):
    def problems(text):
        with pytest.raises(ConfigError) as caught:
            read(text)
        return [line.removeprefix(f"{tmp_path / 'server.ini'}: ") for line in caught.value.problems]

    return problems


def test_an_app(read):
    """As the manual has it, also what check-config shows."""
    config = read(
        "[app:chat]\nservice = fcm\np2 = *, chat\nhost = push.@HOST@\nrate_limit = 5s\npool_name = pool"
    )
    app = config.apps["chat"]
    assert (app.service, app.p2, app.hosts) == ("fcm", ("*", "chat"), ("push.a.example", "push.b.example"))
    assert (app.rate_limit, app.pool_name) == (5.0, "pool")
    assert "app             chat: fcm by pool pool; registers by p2" in describe(config)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[app:a]\np2 = *", "[app:a] service: missing; one of fcm, apns, webpush"),
        ("[app:a]\nservice = gcm\np2 = *", "[app:a] service: 'gcm' is none of"),
        ("[app:a]\nservice = fcm", "[app:a]: no device could register"),
        (
            "[app:a]\nservice = fcm\np2 = *\npool_name = pol",
            "[app:a] pool_name: no section [http_connections:pol]",
        ),
        ("[app:a]\nservice = fcm\ntigas = *", "[app:a] tigas: no such key; did you mean 'tigase'?"),
        (
            "[app:a]\nservice = fcm\np2 = *\n[app:b]\nservice = fcm\np2 = x, *",
            "[app:b] p2: '*' means [app:a] already",
        ),
        (
            "[app:a]\nservice = fcm\ntigase = x\n[app:b]\nservice = apns\ntigase = x",
            "[app:b] tigase: 'x' means [app:a] already",
        ),
        (
            "[app:a]\nservice = fcm\nappserver = yes\n"
            "[app:b]\nservice = fcm\nappserver = yes\nhost = x.example",
            "[app:b] appserver: '*' means [app:a] already",
        ),
        (
            "[mod_push]\nvirtual_pubsub_hosts = pubsub.@HOST@",
            "[mod_push] virtual_pubsub_hosts: 'pubsub.a.example'",
        ),
    ],
)
def test_problems(problems, text, problem):
    """A line for each, and no request with two meanings."""
    assert any(line.startswith(problem) for line in problems(text)), problems(text)


def test_apps_on_hosts_of_their_own(read):
    """The same names may mean another app elsewhere, and the same for another service."""
    apps = (
        "[app:a]\nservice = fcm\np2 = *\nhost = x.example\n"
        "[app:b]\nservice = fcm\np2 = *\nhost = y.example\n"
        "[app:c]\nservice = apns\np2 = *"
    )
    assert list(read(apps).apps) == ["a", "b", "c"]


def test_an_app_without_an_app_server(tmp_path):
    """Is said, and has no effect."""
    path = tmp_path / "server.ini"
    path.write_text("[app:a]\nservice = fcm\np2 = *")
    assert any(notice.startswith("[app:a] has no effect") for notice in load(path, {}).notices)
