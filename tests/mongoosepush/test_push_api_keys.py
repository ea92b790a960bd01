"""The API's keys: the file, who is who, and quotas."""

import pytest

from xmpppush.errors import ConfigError
from xmpppush.mongoosepush.api_keys import OverQuota, Unauthorized, read_api_keys

ONE, TWO = "a" * 32, "b" * 31 + "="


@pytest.fixture
def keys(tmp_path):
    def read(text):
        (tmp_path / "keys").write_text(text)
        return read_api_keys(tmp_path / "keys")

    return read


def test_a_key_is_its_client(keys):
    """In any case of the scheme; comments and empty lines do not count."""
    file = keys(f"# ours\n\none {ONE}\n  two\t{TWO}  2.5\n")
    assert file.identify(f"Bearer {ONE}").name == "one"
    two = file.identify(f"bearer  {TWO}")
    assert (two.name, two.rate) == ("two", 2.5)
    assert ONE not in repr(file.identify(f"Bearer {ONE}"))


@pytest.mark.parametrize(
    "given",
    [None, "", "Bearer", "Bearer ", f"Basic {ONE}", ONE, f"Bearer {ONE}x", "Bearer \xff\xfe", "Bearer one"],
)
def test_all_else_is_nobody(keys, given):
    """Without a word about what was wrong."""
    with pytest.raises(Unauthorized):
        keys(f"one {ONE}").identify(given)


def test_a_quota_is_a_bucket(keys):
    """A second's requests at once, then as they come; a clock that is set back does no harm."""
    file = keys(f"one {ONE} 2\nslow {TWO} 0.5\n")
    one, slow = file.identify(f"Bearer {ONE}"), file.identify(f"Bearer {TWO}")
    file.admit(one, 100.0)
    file.admit(one, 100.0)
    with pytest.raises(OverQuota) as raised:
        file.admit(one, 100.0)
    assert raised.value.after == 1
    file.admit(one, 100.5)
    with pytest.raises(OverQuota):
        file.admit(one, 50.0)
    file.admit(one, 51.0)
    file.admit(slow, 100.0)
    with pytest.raises(OverQuota) as raised:
        file.admit(slow, 100.0)
    assert raised.value.after == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no key in it; a line is NAME KEY [REQUESTS_PER_SECOND]"),
        ("one", "line 1: not NAME KEY"),
        (f"one {ONE} 5 6", "line 1: not NAME KEY"),
        (f"o/e {ONE}", "line 1: a name has"),
        ("\none s3cret", "line 2: a key has 16 letters"),
        (f"one {ONE}s3crét", "line 1: a key has 16 letters"),
        (f"one {ONE} many", "line 1: the quota is no number"),
        (f"one {ONE} 0", "line 1: the quota is no number"),
        (f"one {ONE}\none {TWO}", "line 2: 'one' has a key already"),
        (f"one {ONE}\ntwo {ONE}", "line 2: the key of 'two' is somebody else's, too"),
    ],
)
def test_a_bad_file_is_a_line_for_each_problem(keys, text, problem):
    """With the number, and never with the key."""
    with pytest.raises(ConfigError) as raised:
        keys(text)
    (line,) = raised.value.problems
    assert line.startswith("[mongoosepush] api_keys: ")
    assert problem in line
    assert "s3cr" not in line
    assert ONE not in line


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    """One line, too."""
    with pytest.raises(ConfigError, match="No such file"):
        read_api_keys(tmp_path / "none")
    (tmp_path / "keys").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_api_keys(tmp_path / "keys")
