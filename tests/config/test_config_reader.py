"""Tests for xmpppush.config.reader and what it stands on: text, keys, checks, notices."""

from pathlib import Path

import pytest
from attrs import asdict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xmpppush.config import load
from xmpppush.config.reader import NAMED_SECTIONS, PLAIN_SECTIONS
from xmpppush.config.sections import AuthSection, LimitsSection
from xmpppush.errors import ConfigError

WHOLE = """
[server]
domains = localhost, example.org
[listen:c2s]
endpoint = tcp:5222:interface=127.0.0.1
[mod_push]
[mod_pubsub]
[http_connections:pool]
server = https://localhost:8443
ca_file = builtin
[mod_push_service_mongoosepush]
pool_name = pool
[mongoosepush]
[mongoosepush:sandbox]
"""


@pytest.fixture
def read(tmp_path):
    """Load a configuration from text."""

    def read(text, **environ):
        path = tmp_path / "server.ini"
        path.write_text(text)
        return load(path, environ)

    return read


@pytest.fixture
def problems(read, tmp_path):
    """The problems of a text, without the file's name, which each of them begins with."""

    def problems(text, **environ):
        with pytest.raises(ConfigError) as caught:
            read(text, **environ)
        start = f"{tmp_path / 'server.ini'}: "
        assert all(line.startswith(start) and line.isprintable() for line in caught.value.problems)
        return [line.removeprefix(start) for line in caught.value.problems]

    return problems


def test_an_empty_file_is_all_defaults(read, tmp_path):
    """No section, no role and no port."""
    config = read("")
    assert config.path == tmp_path / "server.ini"
    assert config.server.domains == ("localhost",)
    assert config.server.data_dir == tmp_path / "var"
    assert config.storage.url == f"sqlite:///{tmp_path}/var/xmpppush.db"
    assert (config.auth, config.limits) == (AuthSection(), LimitsSection())
    assert (config.mod_push, config.mod_pubsub, config.bridge, config.mongoosepush) == (None,) * 4
    assert (config.listeners, config.notices) == ((), ())


def test_a_whole_chain(read, tmp_path):
    """Sections with hardly a key switch the roles on."""
    config = read(WHOLE)
    assert [(each.type, each.tls) for each in config.listeners] == [("c2s", "required")]
    assert config.mod_pubsub.hosts == ("pubsub.localhost", "pubsub.example.org")
    assert config.http_connections["pool"].ca_file == tmp_path / "var/tls/ca.pem"
    assert config.bridge.pool_name == "pool"
    assert config.mongoosepush.sandbox.services == ("fcm", "apns")
    assert config.notices == ()


def test_all_problems_at_once(problems):
    """One line for each problem: section, key, what is wrong, what is allowed."""
    assert problems(
        "[mod_push]\nworker = 5\nmax_errors = many\n[sever]\n[listen:c2s]\ntls = requird\n[auth]\nfoo = 1\n"
    ) == [
        "[sever]: no such section; did you mean [server]?",
        "[auth] foo: no such key; known here: mechanisms, allow_plain_without_tls, registration, "
        "max_failures, failure_window",
        "[listen:c2s] endpoint: missing; a Twisted endpoint string such as tcp:5222:interface=127.0.0.1",
        "[listen:c2s] tls: 'requird' is none of required, optional, direct, none; did you mean 'required'?",
        "[mod_push] max_errors: 'many' is no whole number from 1 to 1000000",
        "[mod_push] worker: no such key; did you mean 'workers'?",
    ]


@pytest.mark.parametrize(
    ("section", "hint"),
    [
        ("Server", "[server]"),
        ("mod_pub_sub", "[mod_pubsub]"),
        ("listener:c2s", "[listen:c2s]"),
        ("listen", "[listen:NAME]"),
        ("http_connection:x", "[http_connections:x]"),
        ("http_connections", "[http_connections:NAME]"),
        ("mongoosepush:fmc:default", "[mongoosepush:fcm:default]"),
        ("mongoosepush:fcm", "[mongoosepush:fcm:NAME]"),
        ("mongoosepush:sandbx", "[mongoosepush:sandbox]"),
        ("mod_push_service", "[mod_push_service_mongoosepush]"),
    ],
)
def test_unknown_section(problems, section, hint):
    """The nearest known section is suggested, with the name that was given."""
    assert problems(f"[{section}]\n") == [f"[{section}]: no such section; did you mean {hint}?"]


def test_unknown_section_that_is_like_nothing(problems):
    """Where nothing comes near, the known ones are listed."""
    (line,) = problems("[xyzzy]\n")
    assert line.startswith("[xyzzy]: no such section; known are [server], ")
    assert all(f"[{name}]" in line for name in PLAIN_SECTIONS)
    assert all(f"[{name}:NAME]" in line for name in NAMED_SECTIONS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[auth]\n[limits]\n[auth]\n", ["[auth]: this section is there twice, again in line 3"]),
        (
            "[auth]\nregistration = no\nmax_failures = 1\nregistration = no\nmax_failures = 2\n",
            [
                "[auth] registration: this key is there twice, again in line 4",
                "[auth] max_failures: this key is there twice, again in line 5",
            ],
        ),
        ("domains = x\n[server]\n", ["line 1: there is text before the first [section]"]),
        (
            "[server]\nsome secret thing\n[auth]\nfoo",
            [
                "line 2: neither a [section] nor a 'key = value' line",
                "line 4: neither a [section] nor a 'key = value' line",
            ],
        ),
        ("[server] domains = x\n[auth]\n", ["line 1: there is text before the first [section]"]),
        ("[DEFAULT]\nfoo = 1\n[auth]\n", None),
    ],
)
def test_form(problems, text, expected):
    """Mistakes in the file's form name the line and never quote it."""
    found = problems(text)
    assert found == expected if expected else "[DEFAULT]: no such section" in found[0]


def test_form_and_content_together(problems):
    """A repeated key hides no other problem."""
    assert len(problems("[auth]\nmax_failures = 1\nmax_failures = 2\n[mod_push]\nworker = 3\n")) == 2


def test_files_that_are_none(tmp_path):
    """A missing file, a folder and text in another encoding are a line each."""
    for path, reason in (
        (tmp_path / "no.ini", "cannot be read: No such file or directory; -c FILE names another one"),
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / "a\0b", "cannot be read: no file name"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(path, {})
        assert caught.value.problems[0].endswith(reason)
        assert caught.value.problems[0].isprintable()
    (tmp_path / "latin.ini").write_bytes("[server]\n; Größe\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="line 2: not UTF-8"):
        load(tmp_path / "latin.ini", {})


def test_byte_order_mark_and_windows_lines(tmp_path):
    """What a Windows editor writes is read."""
    (tmp_path / "server.ini").write_bytes(b"\xef\xbb\xbf[server]\r\ndomains = a.example\r\n")
    assert load(tmp_path / "server.ini", {}).server.domains == ("a.example",)


def test_comments(read):
    """';' and '#' begin a comment on a line, ' ;' behind a value; a ';' in a value stays."""
    config = read("; a\n# b\n[admin] ; c\npassword = a;b#c ; d\n")
    assert config.admin.password == "a;b#c"


def test_environment(read, problems):
    """${NAME} is replaced, anywhere in a value; what is missing is named, what is there is not shown."""
    config = read("[server]\ndomains = ${A}.example, ${B}\n[admin]\npassword = $${A}", A="a", B="b.example")
    assert config.server.domains == ("a.example", "b.example")
    assert config.admin.password == "${A}"
    assert problems(
        "[server]\ndomains = ${NOPE}\n[mod_push]\nworkers = ${W}\nmax_errors = ${}", W="s3cret"
    ) == [
        "[server] domains: the value needs the environment variable NOPE, which is not set",
        "[mod_push] workers: the value is no whole number from 1 to 100000",
        "[mod_push] max_errors: the value has a ${...} without the name of an environment variable in it",
    ]


def test_secret_files(read, problems, tmp_path):
    """file: reads a secret without its last line break; relative names may be systemd credentials."""
    (tmp_path / "password").write_text("pa ss\n\n")
    assert "goes over several lines" in problems("[admin]\npassword = file:password")[0]
    (tmp_path / "password").write_text("pa ss\r\n")
    assert read("[admin]\npassword = file:password").admin.password == "pa ss"
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "password").write_text("from systemd")
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
    assert read("[admin]\npassword = file:password", **environ).admin.password == "from systemd"
    absolute = f"[admin]\npassword = file:{tmp_path}/password"
    assert read(absolute, **environ).admin.password == "pa ss"
    assert read("[admin]\npassword = file:${WHERE}", WHERE="password").admin.password == "pa ss"
    assert read("[admin]\npassword = ${P}", P="file:password").admin.password == "file:password"
    assert problems("[admin]\npassword = file:nope") == [
        "[admin] password: the value names a file that cannot be read: No such file or directory"
    ]
    assert problems("[admin]\npassword = file:") == [
        "[admin] password: the value names no file behind 'file:'"
    ]
    (tmp_path / "password").write_bytes(b"\xff")
    assert problems("[admin]\npassword = file:password") == [
        "[admin] password: the value names a file that is not UTF-8"
    ]
    (tmp_path / "password").write_text("a\nb\n")
    assert "goes over several lines" in problems("[admin]\npassword = file:password")[0]
    (tmp_path / "password").write_text("x" * 70000)
    assert "more than 65536 bytes" in problems("[admin]\npassword = file:password")[0]


def test_secrets_are_nowhere(problems, read, tmp_path):
    """No secret is in a problem, in the repr of a configuration or in its notices."""
    (tmp_path / "token").write_text("s3cret-file")
    text = """
        [storage]
        url = postgresql://u:s3cret-pg@host/db
        [listen:c2s]
        endpoint = tcp:1
        secret.x = s3cret-1
        [listen:component]
        endpoint = tcp:2
        secret.a_b = s3cret-2
        secret.localhost = s3cret-3
        [component]
        jid = a.example
        endpoint = tcp:1
        secret = s3cret-4
          s3cret-5
        [admin]
        password = s3cret-6
        metrics = ${M}
        [limits]
        connections_per_address = file:token
        s3cret-7
    """.replace("        ", "")
    found = problems(text, M="s3cret-8")
    assert len(found) > 7
    assert "s3cret" not in " ".join(found)
    config = read(
        "[listen:component]\nendpoint=tcp:1\nsecret.a.example=s3cret\n[admin]\npassword=s3cret\n"
        "[component]\njid=b.example\nendpoint=tcp:localhost:1\nsecret=s3cret\n"
    )
    assert config.listeners[0].secrets == {"a.example": "s3cret"}
    assert "s3cret" not in repr(config) + " ".join(config.notices)


@pytest.mark.parametrize(
    ("kind", "extra", "tls"),
    [
        ("c2s", "", "required"),
        ("c2s", "tls = none", "none"),
        ("s2s", "", "required"),
        ("component", "secret.a.example = x", "none"),
        ("component", "secret.a.example = x\ntls = required", "direct"),
        ("websocket", "", "direct"),
        ("websocket", "tls = required", "direct"),
        ("http", "", "direct"),
        ("http", "tls = none", "none"),
        ("s2s", "tls = none", "none"),
    ],
)
def test_tls_of_listeners(read, kind, extra, tls):
    """Each type has a sensible default, and all of them can do without."""
    assert read(f"[listen:{kind}]\nendpoint = tcp:5222\n{extra}").listeners[0].tls == tls


def test_ssl_endpoint_is_direct_tls(read, problems):
    """An endpoint that is TLS by itself and a 'tls' that says otherwise contradict each other."""
    assert read("[listen:c2s]\nendpoint = ssl:5223").listeners[0].tls == "direct"
    assert problems("[listen:c2s]\nendpoint = ssl:5223\ntls = none") == [
        "[listen:c2s] tls: 'none' contradicts the endpoint: 'ssl:' is tls = direct"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[listen:a]\nendpoint = tcp:1",
            "[listen:a] type: missing; one of c2s, s2s, component, websocket, http",
        ),
        (
            "[listen:c2s]\nendpoint = tpc:1",
            "[listen:c2s] endpoint: 'tpc:1' begins with no known endpoint type",
        ),
        (
            "[listen:c2s]\nendpoint = tcp:1\ndialback = no",
            "[listen:c2s] dialback: has a meaning for listeners of type s2s only",
        ),
        (
            "[listen:http]\nendpoint = tcp:1\ntls = optional",
            "[listen:http] tls: 'optional' needs STARTTLS, which HTTP does not have; use direct or none",
        ),
        (
            "[listen:component]\nendpoint = tcp:1",
            "[listen:component]: no component could attach; one 'secret.DOMAIN = SECRET' line for each",
        ),
        (
            "[listen:component]\nendpoint = tcp:1\nsecret.localhost = x",
            "[listen:component] secret.localhost: this server serves that domain itself",
        ),
        (
            "[listen:component]\nendpoint = tcp:1\nsecret.a.example = x\ntls = optional",
            "[listen:component] tls: 'optional' needs STARTTLS, which XEP-0114 does not have",
        ),
        (
            "[listen:component]\nendpoint = tcp:1\nsecret.a.example = x\n"
            "[component]\njid = a.example\nendpoint = tcp:b:1\nsecret = x",
            "[listen:component] secret.a.example: this process is that component itself, at another server",
        ),
        (
            "[listen:component]\nendpoint = tcp:1\nsecret.a.example = x\n"
            "[mod_push]\nvirtual_pubsub_hosts = a.example",
            "[mod_push] virtual_pubsub_hosts: 'a.example' is served by itself already",
        ),
        ("[listen:component]\nendpoint = tcp:1\nsecret.a.example =", "[listen:component] secret.a.example: "),
        ("[listen:component]\nendpoint = tcp:1\nsecret = x", "[listen:component] secret: "),
        (
            "[listen:c2s]\nendpoint = tcp:1\nmax_stanza_size = 4KiB",
            "[listen:c2s] max_stanza_size: '4KiB' is out of range; from 10000 to 64MiB is allowed",
        ),
        (
            "[listen:c2s]\nendpoint = tcp:1\n[listen:b]\ntype = c2s\nendpoint = tcp:1:interface=127.0.0.1",
            "[listen:b] endpoint: takes the same port as [listen:c2s]",
        ),
        (
            "[listen:c2s]\nendpoint = tcp:8443\n[mongoosepush]\n",
            "[mongoosepush] endpoint: takes the same port as [listen:c2s]",
        ),
        (
            "[server]\ndomains =\n[listen:c2s]\nendpoint = tcp:5222",
            "[listen:c2s]: clients need a domain, and [server] domains is empty",
        ),
        (
            "[auth]\nmechanisms = PLAIN\n[listen:c2s]\nendpoint = tcp:5222\ntls = none",
            "[listen:c2s] tls: 'none' leaves no way to log in",
        ),
        ("[listen:a b]\ntype = c2s\nendpoint = tcp:1", "[listen:a b]: 'listen:' goes before a name made of"),
        ("[tls]\ncertfile = no.pem", "[tls] certfile: 'no.pem' cannot be read: No such file or directory"),
        ("[tls]\ncertfile = server.ini", "[tls] keyfile: missing; certfile is set, and the two go together"),
        ("[tls]\nkeyfile = server.ini", "[tls] certfile: missing; keyfile is set, and the two go together"),
        (
            "[tls:locallhost]\n",
            "[tls:locallhost]: not a domain that is served here; did you mean [tls:localhost]?",
        ),
        ("[tls:a b]\n", "[tls:a b]: what follows 'tls:' is no domain name"),
        ("[server]\ndata_dir = server.ini", "[server] data_dir: 'server.ini' is a file; a folder is needed"),
        ("[server]\ndomains = a, A", "[server] domains: 'A' is named twice"),
        ("[server]\ndomains = a b@c", "[server] domains: 'b@c' is no domain name"),
        (
            "[storage]\nurl = postgres://x",
            "[storage] url: the value cannot be used yet: PostgreSQL comes with",
        ),
        (
            "[auth]\nmechanisms = SCRAM-SHA-257",
            "[auth] mechanisms: 'SCRAM-SHA-257' is none of SCRAM-SHA-256, SCRAM-SHA-1, PLAIN",
        ),
        ("[s2s]\nmypubsub.com = 1.2.3.4:1", "[s2s] mypubsub.com: no such key; known here: static.DOMAIN"),
        ("[s2s]\nstatik.mypubsub.com = 1.2.3.4:1", "did you mean 'static.mypubsub.com'?"),
        (
            "[component]\njid = a.example",
            "[component] secret: missing; the secret that the XMPP server has for it",
        ),
        ("[component]\njid = a@b\nendpoint = tcp:b:1", "[component] jid: 'a@b' is no domain name"),
        (
            "[component]\njid = a\nendpoint = tcp:b:1\nsecret = x\n"
            "[component:2]\njid = a\nendpoint = tcp:c:1\nsecret = x",
            "[component:2] jid: 'a' is attached by another section already",
        ),
        ("[mod_pubsub]\nhost = localhost", "[mod_pubsub] host: 'localhost' is one of [server] domains"),
        ("[server]\ndomains =\n[mod_pubsub]", "[mod_pubsub] host: missing; there is no served domain"),
        (
            "[server]\ndomains =\n[mod_pubsub]\nhost = x.@HOST@",
            "[mod_pubsub] host: 'x.@HOST@' has @HOST@, and [server] domains is empty",
        ),
        (
            "[http_connections:pol]\nserver = https://x\n[mod_push_service_mongoosepush]\npool_name = pool",
            "pool_name: no section [http_connections:pool]; did you mean 'pol'?",
        ),
        (
            "[mod_push_service_mongoosepush]\npool_name = pool",
            "no section [http_connections:pool]; there is no [http_connections:NAME] at all",
        ),
        (
            "[mod_push_service_mongoosepush]\n",
            "pool_name: missing; the NAME of an [http_connections:NAME] section",
        ),
        (
            "[http_connections:p]\nserver = http://x\n"
            "[mod_push_service_mongoosepush]\npool_name = p\nretry_cap = 500ms",
            "[mod_push_service_mongoosepush] retry_base: is longer than retry_cap",
        ),
        (
            "[http_connections:p]\nserver = embedded:",
            "[http_connections:p] server: 'embedded:' needs a [mongoosepush] section",
        ),
        (
            "[mongoosepush]\n[http_connections:p]\nserver = embedded:8443",
            "server: 'embedded:8443' has something behind 'embedded:'",
        ),
        (
            "[http_connections:x]\nserver = https://x\napi_key = s3cret key",
            "[http_connections:x] api_key: the value is no key: letters, digits and ._~+/- only",
        ),
        (
            "[mongoosepush]\nproxy = http://user:s3cret@",
            "[mongoosepush] proxy: the value cannot be used: not http://[user:password@]host:port",
        ),
        (
            "[mongoosepush]\n[mongoosepush:webpush:a]\nvapid_key_file = server.ini\nsubject = me",
            "subject: 'me' is neither mailto:ADDRESS nor https://...",
        ),
        (
            "[mongoosepush]\n[mongoosepush:webpush:a]\nsubject = mailto:a@b",
            "vapid_key_file: missing; make one: ",
        ),
        ("[mongoosepush:webpush:a]\n", "[mongoosepush:webpush:a]: needs a [mongoosepush] section"),
        (
            "[mongoosepush]\n[mongoosepush:fcm:a]\nappfile = server.ini\n"
            "[mongoosepush:fcm:b]\nappfile = server.ini",
            "[mongoosepush:fcm:b] appfile: [mongoosepush:fcm:a] has the same account, mode and tags",
        ),
        (
            "[http_connections:p]\n",
            "[http_connections:p] server: missing; an address such as https://localhost:8443",
        ),
        ("[mongoosepush:sandbox]", "[mongoosepush:sandbox]: needs a [mongoosepush] section to belong to"),
        (
            "[mongoosepush]\n[mongoosepush:apns:a]",
            "needs certfile and keyfile, or key_id, team_id and p8_file",
        ),
        ("[mongoosepush]\n[mongoosepush:fcm:a]", "appfile: missing; the JSON key of a service account"),
        (
            "[mongoosepush]\n[mongoosepush:sandbox]\nservices = gcm",
            "is none of fcm, apns, webpush; did you mean 'fcm'?",
        ),
    ],
)
def test_problem(problems, text, problem):
    """One mistake, one line that says what to do about it."""
    found = problems(text)
    assert [line for line in found if problem in line], found
    assert len(found) <= 2


@pytest.mark.parametrize(
    ("text", "notices"),
    [
        ("[listen:s2s]\nendpoint = tcp:5269", ["[listen:s2s]"]),
        ("[listen:web]\ntype = http\nendpoint = tcp:5280\n[admin]", []),
        ("[listen:component]\nendpoint = tcp:1:interface=127.0.0.1\nsecret.a.example = x", []),
        ("[listen:websocket]\nendpoint = tcp:1", ["[listen:websocket]"]),
        ("[c2s]\nack_timeout = 1m\n[s2s]\n", ["[s2s]"]),
        (
            "[mod_pubsub]\nhost = a.example\n[mod_push_service_mongoosepush]\npool_name = p\n"
            "[http_connections:p]\nserver = http://x\n"
            "[component]\njid = a.example\nendpoint = tcp:b:1\nsecret = x",
            [],
        ),
        ("[mongoosepush]\n[mongoosepush:fcm:default]\nappfile = server.ini", []),
        ("[auth]\nregistration = yes", ["[auth] registration"]),
        ("[auth]\nregistration = no", []),
        ("[mod_push]\nbatch_window = 0s\nvirtual_pubsub_hosts =\nplugin_module = defaults", []),
        ("[mod_push]\nplugin_module = defaults, enhanced, hints\nbatch_window = 5s", []),
    ],
)
def test_notices(read, text, notices):
    """What has no effect yet is said in a line for each section or key."""
    assert list(read(text).notices) == [f"{notice} has no effect in this version" for notice in notices]


def test_a_component_alone(read):
    """Without a domain, an app server or another component there is nothing for it."""
    listener = "[listen:component]\nendpoint = tcp:1:interface=127.0.0.1\nsecret.a.example = x\n"
    (notice,) = read(f"[server]\ndomains =\n{listener}").notices
    assert notice == "[listen:component] has no effect: there is nobody here to talk to but the component"
    assert not read(f"[server]\ndomains =\n{listener}secret.b.example = x").notices
    assert not read(listener).notices


@pytest.mark.parametrize(
    ("endpoint", "tls", "is_said"),
    [
        ("tcp:1", "none", True),
        ("tcp:1:interface=192.0.2.1", "none", True),
        ("tcp:1", "direct", False),
        ("tcp:1:interface=127.0.0.1", "none", False),
        ("unix:x", "none", False),
    ],
)
def test_components_in_clear_text(read, endpoint, tls, is_said):
    """Components that come from other machines without TLS are worth a line at start."""
    notices = read(f"[listen:component]\nendpoint = {endpoint}\ntls = {tls}\nsecret.a.example = x").notices
    assert [notice.partition(" and")[0] for notice in notices] == ["[listen:component] has no TLS"] * is_said


def test_push_plugins(read, problems):
    """In the order they are named; what nobody has is a problem."""
    assert read("[mod_push]\nplugin_module = hints, defaults").mod_push.plugin_module == ("hints", "defaults")
    (line,) = problems("[mod_push]\nplugin_module = default")
    assert line.startswith(
        "[mod_push] plugin_module: 'default' is no installed plugin (defaults, enhanced, hints"
    )
    assert line.endswith("; did you mean 'defaults'?")


def test_the_text_of_hidden_bodies(read, problems):
    """May be none, and in any language."""
    assert read("[mod_push]").mod_push.hidden_body_text == "New message"
    assert read("[mod_push]\nhidden_body_text =").mod_push.hidden_body_text == ""
    assert read("[mod_push]\nhidden_body_text = Neue Nachricht ✉").mod_push.hidden_body_text == (
        "Neue Nachricht ✉"
    )
    assert read("[mod_push]\nmax_body_length = 0\nsuspend_retry = 2h").mod_push.suspend_retry == 7200.0
    (line,) = problems("[mod_push]\nsuspend_retry = 0s")
    assert line.startswith("[mod_push] suspend_retry: ")


def test_an_installed_push_plugin(read, monkeypatch):
    """Anybody's plugin can be named, without a notice."""
    plugin = type("Plugin", (), {"name": "quiet-nights"})()
    monkeypatch.setattr("xmpppush.config.reader.getPlugins", lambda interface: [plugin])
    config = read("[mod_push]\nplugin_module = defaults, quiet-nights")
    assert config.mod_push.plugin_module == ("defaults", "quiet-nights")
    assert config.notices == ()


def test_an_installed_node_type(read, problems, monkeypatch):
    """Anybody's can be named; one that nobody installed is a problem: no client could create its nodes."""
    node_type = type("NodeType", (), {"name": "notice-board"})()
    monkeypatch.setattr("xmpppush.config.reader.getPlugins", lambda interface: [node_type])
    assert read("[mod_pubsub]\nplugins = push, notice-board").mod_pubsub.plugins == ("push", "notice-board")
    assert problems("[mod_pubsub]\nplugins = flat, pusch") == [
        "[mod_pubsub] plugins: 'pusch' is no installed node type (push, flat, notice-board); "
        "did you mean 'push'?"
    ]


def test_roles_without_their_neighbours(read):
    """A role that has nobody to work with is said at start."""
    assert read("[mod_pubsub]\nplugins = flat, push").notices == (
        "[mod_pubsub] has no effect without [mod_push_service_mongoosepush]",
    )
    assert read("[admin]").notices == ("[admin] has no effect without a listener of type http",)
    pool = "[http_connections:p]\nserver = http://x\n[mod_push_service_mongoosepush]\npool_name = p\n"
    assert read(pool).notices == ("[mod_push_service_mongoosepush] has no effect without [mod_pubsub]",)
    assert read("[server]\ndomains =\n[mod_push]").notices == (
        "[mod_push] has no effect without a served domain",
    )


def test_a_pure_app_server(read):
    """No domain is needed where no client logs in."""
    config = read("[server]\ndomains =\n[mod_pubsub]\nhost = pubsub.example.org\n[tls:pubsub.example.org]\n")
    assert config.server.domains == ()
    assert list(config.tls_domains) == ["pubsub.example.org"]


def test_relative_paths(read, tmp_path):
    """Paths begin at the file's folder, the database at the data folder."""
    (tmp_path / "a.pem").write_text("x")
    config = read(
        "[server]\ndata_dir = data\n[tls]\ncertfile = a.pem\nkeyfile = a.pem\n[storage]\nurl = sqlite:///x.db"
    )
    assert config.tls.certfile == tmp_path / "a.pem"
    assert config.storage.url == f"sqlite:///{tmp_path}/data/x.db"


def test_the_label_is_what_the_operator_wrote(tmp_path, monkeypatch):
    """Problems begin with the path as it was given."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "server.ini").write_text("[mod_push]\nworker = 1\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load(Path("etc/server.ini"), {})
    assert str(caught.value) == "etc/server.ini: [mod_push] worker: no such key; did you mean 'workers'?"


def test_nothing_is_mutable(read):
    """A configuration can be compared and taken apart: it is values only."""
    assert read(WHOLE) == read(WHOLE)
    assert asdict(read(WHOLE))["mod_push"]["workers"] == 100


sections = st.sampled_from([*PLAIN_SECTIONS, *(f"{head}:x" for head in NAMED_SECTIONS), "listen:c2s", "x"])
keys = st.sampled_from(
    [
        "type",
        "endpoint",
        "tls",
        "secret.x",
        "static.x",
        "host",
        "server",
        "jid",
        "domains",
        "url",
        "certfile",
        "plugins",
        "mechanisms",
        "ttl",
        "retry_base",
        "data_dir",
        "pool_name",
        "password",
        "batch_window",
    ]
)
settings_line = st.tuples(keys, st.text(max_size=30)).map(" = ".join)
lines = sections.map("[{}]".format) | settings_line | st.text(max_size=20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.binary(max_size=200)
    | st.lists(lines, max_size=12).map(lambda all: "\n".join(all).encode("utf-8", "replace"))
)
def test_no_file_surprises_the_reader(tmp_path, content):
    """Whatever is in the file, it is a configuration or a list of printable problems."""
    path = tmp_path / "server.ini"
    path.write_bytes(content)
    problems = ("none",)
    try:
        load(path, {})
    except ConfigError as error:
        problems = error.problems
    assert problems
    assert all(problem.isprintable() for problem in problems)


def test_a_pool_that_nothing_reaches_is_named(read):
    """Of pools with the same mode and tags the first takes all; and real pools go before the sandbox."""
    key = "key_id = a\nteam_id = b\np8_file = server.ini\ndefault_topic = "
    config = read(
        f"[mongoosepush]\n[mongoosepush:apns:a]\n{key}one\n[mongoosepush:apns:b]\n{key}two\n"
        f"[mongoosepush:apns:c]\n{key}one\ntags = x\n[mongoosepush:sandbox]\n"
    )
    assert config.notices == (
        "[mongoosepush:apns:b] has no effect: [mongoosepush:apns:a] goes first,"
        " its mode and tags are the same",
        "[mongoosepush:sandbox] services 'apns' has no effect: [mongoosepush:apns:a] sends those",
    )


def test_the_push_service_has_keys_of_its_own(read):
    """Proxy, limits, keys and Web Push come out as they went in; the proxy's password is not shown."""
    section = read(
        "[mongoosepush]\nproxy = http://me:s3cret@proxy:3128\nmax_waiting = 5\ntags_optional = yes\n"
        "api_keys = server.ini\n[mongoosepush:webpush:w]\nvapid_key_file = server.ini\n"
        "subject = mailto:a@b\nallowed_hosts = *.example.org, up.example.net\nconnections = 3\n"
        "[mongoosepush:fcm:f]\nappfile = server.ini\nconnections = 4\nca_file = server.ini\n"
    ).mongoosepush
    assert (section.proxy, section.max_waiting, section.tags_optional) == (
        "http://me:s3cret@proxy:3128",
        5,
        True,
    )
    assert "s3cret" not in repr(section)
    assert section.api_keys.name == "server.ini"
    webpush = section.webpush["w"]
    assert (webpush.subject, webpush.allowed_hosts, webpush.connections) == (
        "mailto:a@b",
        ("*.example.org", "up.example.net"),
        3,
    )
    assert (section.fcm["f"].connections, section.fcm["f"].ca_file.name) == (4, "server.ini")
