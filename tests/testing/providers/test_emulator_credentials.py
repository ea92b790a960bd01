"""Credentials of the emulators: like the providers', and the same after a restart."""

import json
import stat

from cryptography import x509

from xmpppush.testing.providers import FCMEmulator
from xmpppush.testing.providers.credentials import (
    keep_apns_credentials,
    keep_authority,
    keep_fcm_credentials,
    keep_vapid_key,
    topics_of,
    write_all,
)


def test_a_folder_keeps_what_clients_have_read(tmp_path):
    """The same authority, p8 key, certificate and VAPID key for the next start."""
    first = keep_authority(tmp_path)
    keep_apns_credentials(tmp_path, first)
    keep_vapid_key(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    second = keep_authority(tmp_path, ["other.example"])
    keep_apns_credentials(tmp_path, second)
    keep_vapid_key(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert second.ca == first.ca
    second.server.certificate.verify_directly_issued_by(first.authority.certificate)


def test_files_are_their_owners(tmp_path):
    """Keys, even if only of tests, with mode 0600."""
    keep_apns_credentials(tmp_path, keep_authority(tmp_path))
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("*.p*")}
    assert modes == {0o600}


def test_another_topic_gets_another_certificate(tmp_path):
    """All else stays."""
    authority = keep_authority(tmp_path)
    first = keep_apns_credentials(tmp_path, authority, "com.example.a")
    second = keep_apns_credentials(tmp_path, authority, "com.example.b")
    written = x509.load_pem_x509_certificate((tmp_path / "apns_cert.pem").read_bytes())
    assert topics_of(written) == ("com.example.b", "com.example.b.voip", "com.example.b.complication")
    assert first.p8 == second.p8


def test_a_service_account_is_kept(tmp_path, authority, clock):
    """The port in it may change, the key does not."""
    first = FCMEmulator(authority, keep_fcm_credentials(tmp_path, "my-project"), clock, host="fcm.example")
    write_all(tmp_path, {"service-account.json": first.service_account()})
    again = keep_fcm_credentials(tmp_path, "my-project")
    assert json.loads(again.service_account("x")) == {**json.loads(first.service_account()), "token_uri": "x"}
    assert keep_fcm_credentials(tmp_path, "another").project_id == "another"


def test_secrets_stay_out_of_representations(apns_credentials, fcm_credentials):
    """A failing test prints these."""
    assert "key=" not in repr(apns_credentials)
    assert "key=" not in repr(fcm_credentials)
