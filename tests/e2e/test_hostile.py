"""What a stranger can send to a running server: the right end, soon, and for next to no CPU (done when 5)."""

import contextlib
import os
import re
import socket
from base64 import b64encode

import pytest

from xmpppush.testing.processes import ServerProcess, wait_for

INI = """
[server]
domains = localhost
[listen:c2s]
endpoint = tcp:0:interface=127.0.0.1
tls = required
[listen:behind-a-proxy]
type = c2s
endpoint = tcp:0:interface=127.0.0.1
tls = none
[auth]
allow_plain_without_tls = yes
[mod_push]
[mod_pubsub]
host = pubsub.@HOST@
[http_connections:nobody]
server = https://127.0.0.1:9
[mod_push_service_mongoosepush]
pool_name = nobody
"""

STREAM = (
    "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'"
    " to='localhost' version='1.0'>"
)
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
BIND = "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
PING = "<iq type='get' id='still-there' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>"
LAUGHS = (
    "<!DOCTYPE l [<!ENTITY a0 'ha'>"
    + "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10))
    + f"]>{STREAM}<message><body>&a9;</body></message>"
)
PUBSUB = "http://jabber.org/protocol/pubsub"
CPU_LIMIT = 0.2  # seconds


class Socket:
    """A client that takes no rule for granted."""

    def __init__(self, address):
        self._socket = socket.create_connection(address, timeout=10)
        self._came = b""

    def send(self, data):
        """Whatever they still take."""
        with contextlib.suppress(OSError):
            self._socket.sendall(data.encode() if isinstance(data, str) else data)
        return self

    def until(self, pattern):
        """What came, up to something that fits; everything, where the connection ends before."""
        while not (found := re.search(pattern.encode(), self._came)):
            try:
                data = self._socket.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                came, self._came = self._came, b""
                return came.decode()
            self._came += data
        came, self._came = self._came[: found.end()], self._came[found.end() :]
        return came.decode()

    def log_in(self, user="alice"):
        plain = b64encode(f"\0{user}\0secret".encode()).decode()
        self.send(STREAM).send(f"<auth xmlns='{SASL}' mechanism='PLAIN'>{plain}</auth>")
        assert "<success" in self.until("<success[^>]*>|<failure")
        self.send(STREAM + BIND)
        assert "<jid>" in self.until("</iq>")
        return self

    def rest(self):
        """Until they close."""
        return self.until("$never")

    def close(self):
        self._socket.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ServerProcess(tmp_path_factory.mktemp("hostile"), INI) as server:
        for user in ("alice", "bob"):
            server.command("user", "add", f"{user}@localhost", "--password", "secret")
        yield server
        log = server.log.read_text()
        assert "Traceback" not in log
        assert "quite private" not in log
        assert "secret" not in log


@pytest.fixture
def connect(server):
    """Opens a socket to a listener, by default the one without TLS."""
    opened = []

    def connect(listener="listen:behind-a-proxy"):
        opened.append(Socket(server.address(listener)))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


def cpu_of(pid):
    """Seconds of CPU that a process has used, in itself and for itself in the kernel."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def condition_of(answer):
    found = re.search(r"<stream:error><([a-z-]+) ", answer)
    return found[1] if found else answer


@pytest.mark.parametrize(
    ("known", "data", "condition"),
    [
        (False, LAUGHS, "restricted-xml"),
        (False, STREAM + "\n" * 2**20, "policy-violation"),
        (True, "<message><body>" + "\n" * 2**20, "policy-violation"),
        (False, STREAM + "<a>" * 10**5, "policy-violation"),
        (True, "<message>" + "<a>" * 10**5, "policy-violation"),
        (True, "<message>" + "<a/>" * 10**5, "policy-violation"),
        (True, "<message " + " ".join(f"a{n}=''" for n in range(2**16)) + "/>", "policy-violation"),
        (True, "<message to='" + "É" * 2**20, "policy-violation"),
        (True, b"<message><body>\xff\0", "not-well-formed"),
    ],
    ids=[
        "billion laughs",
        "newlines of a stranger",
        "newlines",
        "depth of a stranger",
        "depth",
        "width",
        "attributes",
        "an address",
        "no UTF-8",
    ],
)
def test_an_attack_ends_with_its_stream_error_and_costs_nothing(server, connect, known, data, condition):
    """As RFC 6120 section 4.9.3 has it; the stream is closed behind it."""
    attacker = connect()
    if known:
        attacker.log_in()
    before = cpu_of(server.pid)
    answer = attacker.send(data).rest()
    assert condition_of(answer) == condition
    assert answer.endswith("</stream:stream>")
    assert cpu_of(server.pid) - before < CPU_LIMIT


@pytest.mark.parametrize("known", [False, True])
def test_a_stanza_that_never_ends(server, connect, known):
    """It is not waited for: the stream ends at the limit, however fast or long one goes on."""
    attacker = connect()
    attacker.log_in() if known else attacker.send(STREAM)
    before = cpu_of(server.pid)
    attacker.send("<message><body>")
    for _ in range(64):
        attacker.send("x" * 16384)
    assert condition_of(attacker.rest()) == "policy-violation"
    assert cpu_of(server.pid) - before < CPU_LIMIT


@pytest.mark.parametrize(
    ("stanza", "condition"),
    [
        (f"<message to='{'A' * 200_000}'/>", "jid-malformed"),
        (
            f"<iq type='set' id='i' to='pubsub.localhost'><pubsub xmlns='{PUBSUB}#owner'>"
            "<affiliations node='n'>"
            + "".join(f"<affiliation jid='{'É' * 500}@b{n}' affiliation='owner'/>" for n in range(200))
            + "</affiliations></pubsub></iq>",
            "bad-request",
        ),
        (
            "<iq type='get' id='i' to='pubsub.localhost'>"
            f"<query xmlns='http://jabber.org/protocol/disco#info' node='{'x' * 10_000}'/></iq>",
            "item-not-found",
        ),
        (
            f"<iq type='set' id='i' to='pubsub.localhost'><pubsub xmlns='{PUBSUB}'>"
            f"<create node='{'x' * 10_000}'/></pubsub></iq>",
            "not-acceptable",
        ),
    ],
    ids=["an address", "addresses", "a node's name", "a new node's name"],
)
def test_a_stanza_that_is_too_much_is_refused_alone(server, connect, stanza, condition):
    """A stanza error, at once; the stream goes on."""
    attacker = connect().log_in()
    before = cpu_of(server.pid)
    answer = attacker.send(stanza + PING).until("id='still-there' type='result'/>")
    assert f"<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>" in answer
    assert cpu_of(server.pid) - before < CPU_LIMIT


def test_without_tls_there_is_no_login(connect):
    """Where TLS is required no mechanism is offered before it, and none is taken."""
    client = connect("listen:c2s")
    features = client.send(STREAM).until("</stream:features>")
    assert "<required/>" in features
    assert "<mechanism" not in features
    failure = client.send(f"<auth xmlns='{SASL}' mechanism='PLAIN'>AGFsaWNlAHNlY3JldA==</auth>").until(
        "</failure>"
    )
    assert "<encryption-required/>" in failure
    assert condition_of(client.send(BIND).rest()) == "not-authorized"


def test_what_is_sent_along_with_starttls_is_never_read(connect):
    """Whoever injects it stands between client and server (CVE-2011-0411)."""
    client = connect("listen:c2s")
    client.send(STREAM).until("</stream:features>")
    client.send(f"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>{STREAM}<auth xmlns='{SASL}'/>")
    assert client.until("<proceed[^>]*>").endswith("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
    client.send("no TLS")  # our own goodbye, too, would have to be inside TLS
    assert "<" not in client.rest()


def test_nobody_writes_in_the_name_of_another(connect):
    """The stream of whoever tries ends, and nothing arrives (RFC 6120 section 8.1.2.1)."""
    alice, bob = connect().log_in(), connect().log_in("bob")
    bob.send("<presence/>").until("<presence[^>]*>")
    spoofed = "<message from='bob@localhost' to='bob@localhost'><body>quite private</body></message>"
    assert condition_of(alice.send(spoofed).rest()) == "invalid-from"
    assert "private" not in bob.send(PING).until("id='still-there' type='result'/>")


def test_a_client_that_never_reads_loses_no_message(server, connect):
    """It is thrown out with some megabytes waiting; what TCP had not taken is there when it comes again."""
    alice, bob = connect().log_in(), connect().log_in("bob")
    body = "quite private " * 10_000
    for number in range(60):
        alice.send(f"<message to='bob@localhost' type='chat' id='m{number}.'><body>{body}</body></message>")
    alice.send(PING).until("id='still-there' type='result'/>")
    bob.send("<presence/>")
    for number in range(60, 100):
        alice.send(f"<message to='bob@localhost' type='chat' id='m{number}.'><body>{body}</body></message>")
    alice.send(PING).until("id='still-there' type='result'/>")
    wait_for("a line that says so", lambda: "bob@localhost/" in server.log.read_text())
    again = connect().log_in("bob").send("<presence/>")
    came = again.until(r"m99\.[^%]*</message>")
    assert set(re.findall(r"id='m(\d+)\.'", came)) >= {str(number) for number in range(40, 100)}
