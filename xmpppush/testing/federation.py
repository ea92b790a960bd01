"""
Prosody, ejabberd and xmpppush as servers of one federation on loopback, for tests of s2s.

`Federation` has a certificate authority and a DNS zone for three domains: `PROSODY`, `EJABBERD` and `OURS`.
The two servers find each other and us through SRV records of that zone, speak TLS with certificates of that
authority, and prove their domains by SASL EXTERNAL, or by dialback where a certificate does not.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from xmpppush.certificates import Credentials, issue, make_authority
from xmpppush.testing.dns import DNSServer
from xmpppush.testing.xmppservers import Ejabberd, Prosody, XMPPServerProcess, free_ports, listens

PROSODY, EJABBERD, OURS = "prosody.test", "ejabberd.test", "ours.test"
DOMAINS = (PROSODY, EJABBERD, OURS)
HOST = "127.0.0.1"

# Prosody's own resolver knows port 53 alone.
OUR_DNS = """
local methods = getmetatable(require "socket".udp()).__index;
local connect = methods.setpeername;
methods.setpeername = function (socket, address, port, ...)
    if port == 53 then
        address, port = "127.0.0.1", {port};
    end
    return connect(socket, address, port, ...);
end
module:set_global();
"""


class Authority:
    """Issues certificates that all of a federation trust, or nobody does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self._authority = make_authority(datetime.now(UTC))
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(self._authority.certificate.public_bytes(Encoding.PEM))

    def certificate_for(self, *names: str) -> Path:
        """A PEM file with key and certificate."""
        return self.keep(issue(self._authority, names, datetime.now(UTC)), names[0])

    def keep(self, credentials: Credentials, name: str) -> Path:
        path = self._folder / f"{name}.pem"
        key = credentials.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(key + credentials.certificate.public_bytes(Encoding.PEM))
        return path


class Federation:
    """
    What the servers of a test have in common; a context manager, which runs the DNS server.

    Attributes:
        authority: Of the certificates.
        ports: Where each domain takes connections of other servers.
        dns_port: Of the DNS server, UDP on loopback.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder / "authority")
        self.ports = dict(zip(DOMAINS, free_ports(len(DOMAINS)), strict=True))
        # ejabberd asks the system's resolver for the addresses of hosts, and that one knows this name.
        zone = {"localhost": [f"A {HOST}"]}
        for domain, port in self.ports.items():
            for name in (domain, f"pubsub.{domain}"):
                zone[f"_xmpp-server._tcp.{name}"] = [f"SRV 5 0 {port} localhost"]
        self._dns = DNSServer(folder, zone)

    @property
    def dns_port(self) -> int:
        return self._dns.port

    def __enter__(self) -> "Federation":
        self._dns.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dns.__exit__()


class Member(XMPPServerProcess):
    """
    A server of the federation.

    Args:
        authority: Whose certificate it shows; by default the federation's.
        secure: Take peers with valid certificates only, which is no default of either server.
    """

    def __init__(
        self,
        federation: Federation,
        users: Iterable[str],
        authority: Authority | None = None,
        secure: bool = False,
    ) -> None:
        # Both look for free ports in the same order, and the federation's are not listened on yet.
        super().__init__(federation.folder, users)
        taken = set(federation.ports.values())
        ports = [port for port in free_ports(2 + len(taken)) if port not in taken]
        self.port, self.component_port = ports[:2]
        self.address = (HOST, self.port)
        self.federation = federation
        self.s2s_port = federation.ports[self.domain]
        self.secure = secure
        self.trusted = federation.authority.ca_file
        issuer = authority or federation.authority
        self.certificate = issuer.certificate_for(self.domain, f"pubsub.{self.domain}")
        self.ca_file = issuer.ca_file

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"{self.name} ended:\n{self.logs()}")
        return listens(self.port) and listens(self.s2s_port)


class FederatedProsody(Member, Prosody):
    """Prosody with s2s and a pubsub host, where Juliet makes the nodes."""

    domain = PROSODY

    def configure(self) -> tuple[list[str], dict[str, str]]:
        self.write_accounts()
        plugins = self.folder / "plugins"
        plugins.mkdir(exist_ok=True)
        (plugins / "mod_our_dns.lua").write_text(OUR_DNS.format(port=self.federation.dns_port))
        config = self.folder / "prosody.cfg.lua"
        config.write_text(
            f"""
run_as_root = true
pidfile = "{self.folder}/prosody.pid"
data_path = "{self.folder}/data"
plugin_paths = {{ "{plugins}" }}
log = {{ debug = "{self.log}" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {self.port} }}
s2s_ports = {{ {self.s2s_port} }}
modules_enabled = {{
    "our_dns"; "roster"; "saslauth"; "tls"; "disco"; "posix"; "dialback"; "ping"; "smacks"; "cloud_notify";
}}
authentication = "internal_plain"
c2s_require_encryption = true
s2s_require_encryption = true
s2s_secure_auth = {str(self.secure).lower()}
-- With smacks a session that was cut off lives on; push is for who is gone.
smacks_hibernation_time = 1
ssl = {{ certificate = "{self.certificate}", key = "{self.certificate}", cafile = "{self.trusted}" }}

VirtualHost "{self.domain}"

Component "pubsub.{self.domain}" "pubsub"
    admins = {{ "juliet@{self.domain}" }}
""",
            encoding="utf-8",
        )
        return ["prosody", "-F", "--config", str(config)], {}


class FederatedEjabberd(Member, Ejabberd):
    """ejabberd with s2s and a pubsub host."""

    domain = EJABBERD

    def configure(self) -> tuple[list[str], dict[str, str]]:
        config = self.folder / "ejabberd.yml"
        # mod_s2s_dialback leaves a peer with an invalid certificate to dialback; "required" is about TLS.
        dialback = "" if self.secure else "  mod_s2s_dialback: {}\n"
        config.write_text(
            f"""
hosts: ["{self.domain}"]
certfiles: ["{self.certificate}"]
ca_file: "{self.trusted}"
loglevel: debug
auth_method: internal
s2s_access: all
s2s_use_starttls: required
listen:
  -
    port: {self.port}
    ip: "127.0.0.1"
    module: ejabberd_c2s
    starttls_required: true
    max_stanza_size: 262144
    shaper: none
    access: all
  -
    port: {self.s2s_port}
    ip: "127.0.0.1"
    module: ejabberd_s2s_in
    max_stanza_size: 262144
modules:
  mod_offline: {{}}
  mod_roster: {{}}
  mod_disco: {{}}
  mod_ping: {{}}
  mod_push: {{}}
  mod_pubsub:
    host: "pubsub.@HOST@"
    access_createnode: all
    plugins: ["flat"]
{dialback}""",
            encoding="utf-8",
        )
        command, environ = self.command(config)
        names = self.folder / "inetrc"
        names.write_text(
            '{resolv_conf, ""}.\n{hosts_file, ""}.\n{lookup, [dns]}.\n'
            f"{{nameserver, {{127,0,0,1}}, {self.federation.dns_port}}}.\n"
        )
        return command, {**environ, "ERL_INETRC": str(names)}


MEMBERS: Sequence[type[Member]] = (FederatedProsody, FederatedEjabberd)
