"""Tests for xmpppush.config.values."""

import errno
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmpppush.config import values
from xmpppush.config.values import BadValue


def refusal(convert, text):
    with pytest.raises(BadValue) as caught:
        convert(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("5s", 5.0),
        ("0.5s", 0.5),
        ("10m", 600.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        ("0", 0.0),
        ("0s", 0.0),
        ("7", 7.0),
        ("1 h", 3600.0),
    ],
)
def test_duration(text, seconds):
    """Durations are seconds, whatever their unit."""
    assert values.duration("0s", "10d")(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "5 minutes", "-1s", "1e3s", "5M", "nan", "inf", "1h30m", "٣s", "9" * 5000]
)
def test_no_duration(text):
    """Anything else is refused with examples of what is allowed."""
    assert "such as 500ms" in refusal(values.duration("0s", "10d"), text)


def test_duration_out_of_range():
    """The range is named in the words of the configuration."""
    assert refusal(values.duration("1s", "1h"), "0s") == "is out of range; from 1s to 1h is allowed"
    assert refusal(values.duration("1s", "1h"), "61m") == "is out of range; from 1s to 1h is allowed"


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("4096", 4096),
        ("10B", 10),
        ("256KiB", 262144),
        ("256kib", 262144),
        ("1 MiB", 1048576),
        ("1GiB", 1 << 30),
    ],
)
def test_size(text, octets):
    """Sizes are bytes."""
    assert values.size("1", "1GiB")(text) == octets


@pytest.mark.parametrize("text", ["", "KiB", "1KB", "1k", "1.5MiB", "-1", "9" * 5000])
def test_no_size(text):
    """Decimal units are refused, not guessed."""
    assert "such as 65536, 256KiB" in refusal(values.size("1", "1GiB"), text)


@pytest.mark.parametrize("text", ["yes", "Yes", "on", "TRUE", "1"])
def test_yes(text):
    """The spellings of configparser."""
    assert values.boolean(text) is True


@pytest.mark.parametrize("text", ["no", "off", "False", "0"])
def test_no(text):
    """The spellings of configparser."""
    assert values.boolean(text) is False


@pytest.mark.parametrize("text", ["", "maybe", "2", "y"])
def test_neither_yes_nor_no(text):
    """Anything else is no boolean."""
    assert refusal(values.boolean, text) == "is neither 'yes' nor 'no'"


@pytest.mark.parametrize("text", ["", "-1", "101", "1.0", "0x10", "1_0", " 1", "٣", "9" * 5000])
def test_no_whole_number(text):
    """Only plain ASCII digits within the range are a number."""
    assert refusal(values.whole(0, 100), text) == "is no whole number from 0 to 100"


def test_choice_suggests():
    """A word that comes near is suggested; case does not matter."""
    convert = values.choice("required", "optional", "none")
    assert convert("Required") == "required"
    assert refusal(convert, "requird").endswith("; did you mean 'required'?")
    assert refusal(convert, "xyz") == "is none of required, optional, none"


@pytest.mark.parametrize("text", ["a,b", "a b", " a , b ", "a,,b,", "a\nb", "a\t b"])
def test_list(text):
    """Lists are separated by commas or white space."""
    assert values.listed(values.name)(text) == ("a", "b")


def test_list_limits():
    """A list may be empty unless it must not; nothing is in it twice."""
    assert values.listed(values.name)("") == ()
    assert "is empty" in refusal(values.listed(values.name, least=1), " , ")
    assert "is named twice" in refusal(values.listed(values.name), "a b a")


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("localhost", "localhost"),
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        ("BÜCHER.example", "bücher.example"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_domain(text, prepared):
    """Domains come out as the router compares them."""
    assert values.domain(text) == prepared


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a..b",
        "-a",
        "a b",
        "a@b",
        "a/b",
        "a:5222",
        "[::1]",
        "a_b",
        "x" * 64,
        "a." * 600 + "a",
        "\ud800",
        "a\0",
    ],
)
def test_no_domain(text):
    """What could be no host name is refused."""
    assert refusal(values.domain, text) == "is no domain name"


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("https://localhost:8443", "https://localhost:8443"),
        ("HTTPS://LOCALHOST:8443/", "https://localhost:8443"),
        ("http://127.0.0.1", "http://127.0.0.1"),
        ("https://[::1]:8443/push/", "https://[::1]:8443/push"),
        ("https://bücher.example/x", "https://xn--bcher-kva.example/x"),
    ],
)
def test_url(text, normal):
    """Addresses are normalised, so that a path can be appended."""
    assert values.http_url(text) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost:8443",
        "ftp://localhost",
        "https://",
        "https://[::1",
        "https://user:pw@localhost",
        "https://localhost:99999",
        "https://localhost:0",
        "https://localhost/?a=b",
        "https://localhost/#a",
        "https://local host",
        "https://300.1.1.1",
        "https://localhost/a b",
        "https://local\thost",
    ],
)
def test_no_url(text):
    """What a request could not go to, or what has no place in a file like this, is refused."""
    assert refusal(values.http_url, text)


@pytest.mark.parametrize("text", ["127.0.0.1:5270", "xmpp.example.org:5269", "[::1]:5269"])
def test_host_and_port(text):
    """A host and a port, IPv6 in brackets."""
    assert values.host_and_port(text) == text


@pytest.mark.parametrize(
    "text", ["", "a", "a:", "a:0", "a:65536", ":1", "::1:5269", "[x]:1", "a:b", "1.2.3.4.5:1"]
)
def test_no_host_and_port(text):
    """Half of it is not enough."""
    assert "host:port" in refusal(values.host_and_port, text)


def test_optional_address():
    """The port may be left out, or the whole."""
    assert values.optional_address("") == ""
    assert values.optional_address("FCM.example:443") == "fcm.example:443"
    assert values.optional_address("fcm.example") == "fcm.example"
    assert refusal(values.optional_address, "fcm.example:x")


def test_files(tmp_path):
    """A file is looked for in the folder of the INI file and has to be readable."""
    (tmp_path / "a.pem").write_text("x")
    convert = values.optional_file_in(tmp_path)
    assert convert("a.pem") == tmp_path / "a.pem"
    assert convert(str(tmp_path / "a.pem")) == tmp_path / "a.pem"
    assert convert("") is None
    assert refusal(convert, "b.pem") == "cannot be read: No such file or directory"
    assert refusal(convert, ".") == "is a folder; a file is needed"
    assert refusal(convert, "a\0") == "holds a control character"


def test_folder(tmp_path):
    """A folder need not be there yet, but no file may be in its place."""
    (tmp_path / "a").write_text("x")
    assert values.folder_in(tmp_path / "etc")("../var") == tmp_path.resolve() / "var"
    assert refusal(values.folder_in(tmp_path), "a") == "is a file; a folder is needed"


def test_database_url(tmp_path):
    """An SQLite file is in the data folder unless its path is absolute, and ends in .db."""
    convert = values.database_url_in(tmp_path)
    assert convert("sqlite:///x.db") == f"sqlite:///{tmp_path}/x.db"
    assert convert("sqlite:////srv/x.db") == "sqlite:////srv/x.db"
    assert refusal(convert, "sqlite:///x.sqlite") == "names a file that does not end in .db"
    assert refusal(convert, "sqlite:///:memory:") == "names a file that does not end in .db"
    assert refusal(convert, "mysql://x") == "is no address such as sqlite:///xmpppush.db"
    assert refusal(convert, f"sqlite:///{'x' * 300}.db") == "cannot be used: File name too long"
    assert "PostgreSQL comes with a later version; use sqlite:///NAME.db" in refusal(
        convert, "postgresql://u:p@h/d"
    )


def test_a_data_folder_of_somebody_else_is_no_bad_value(monkeypatch):
    """Who may not look into it is told so by what opens the file, with the folder's name."""

    def may_not(_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", may_not)
    assert values.database_url_in(Path("/srv"))("sqlite:///x.db") == "sqlite:////srv/x.db"


def test_a_suggestion_is_spelled_as_in_the_list():
    """Not as it is compared."""
    assert refusal(values.choice("SCRAM-SHA-1", "PLAIN"), "plan").endswith("; did you mean 'PLAIN'?")


CONVERTERS = [
    values.boolean,
    values.whole(0, 10),
    values.duration("0s", "1d"),
    values.size("1", "1MiB"),
    values.choice("a", "b"),
    values.listed(values.domain),
    values.name,
    values.domain,
    values.host_and_port,
    values.optional_address,
    values.http_url,
    values.web_path,
    values.database_url_in(Path("/nowhere")),
    values.file_in(Path("/nowhere")),
    values.folder_in(Path("/nowhere")),
]


@settings(deadline=None)
@given(st.text() | st.text("0123456789:/[].@smhd-_ htp", max_size=20), st.sampled_from(CONVERTERS))
def test_no_text_surprises_a_converter(text, convert):
    """Whatever the text, it is a value or a BadValue."""
    with suppress(BadValue):
        convert(text)
