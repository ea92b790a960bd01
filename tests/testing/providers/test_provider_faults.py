"""Scripts of faults: how they are written, and whom they hit."""

import pytest

from xmpppush.testing.providers.faults import BadFault, Fault, Faults, faults_of, parse_fault, read_faults


def met(faults, count, token="aa", on="send"):
    """What each of so many requests meets."""
    return [getattr(faults.meet(token, on), "what", None) for _ in range(count)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Unregistered", Fault("Unregistered")),
        ("503 times=10", Fault("503", times=10)),
        ("goaway after=500", Fault("goaway", after=500)),
        ("TooManyRequests every=100 retry_after=3", Fault("TooManyRequests", every=100, retry_after=3)),
        ("Unregistered token=dead*", Fault("Unregistered", token="dead*")),
        ("delay=0.5", Fault(delay=0.5)),
        ("invalid_grant on=oauth", Fault("invalid_grant", on="oauth")),
    ],
)
def test_a_fault_is_a_word_and_conditions(text, fault):
    """The language of --fault."""
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    "text",
    ["", "503 sometimes=1", "503 times=often", "503 every=0", "503 after=-1", "503 on=monday", "token=a"],
)
def test_a_fault_that_makes_no_sense_is_refused(text):
    """Each wrong text is an error that says so, not a fault that never happens."""
    with pytest.raises(BadFault):
        parse_fault(text)


def test_a_file_has_objects_or_texts(tmp_path):
    """The JSON of --faults."""
    path = tmp_path / "faults.json"
    path.write_text('[{"what": "503", "times": 2}, "goaway after=5"]')
    assert read_faults(path) == [Fault("503", times=2), Fault("goaway", after=5)]


@pytest.mark.parametrize("octets", [b"{", b"{}", b"[1]", b'[{"when": 1}]', b'[{"what": "503", "times": []}]'])
def test_a_file_of_something_else_is_refused(octets):
    """Not JSON, not a list, unknown keys, wrong values."""
    with pytest.raises(BadFault):
        faults_of(octets)


def test_conditions_count_requests():
    """after skips, every picks, times ends."""
    assert met(Faults(["503 times=2"]), 4) == ["503", "503", None, None]
    assert met(Faults(["503 after=2"]), 4) == [None, None, "503", "503"]
    assert met(Faults(["503 every=2"]), 4) == [None, "503", None, "503"]
    assert met(Faults(["503 after=1 every=2 times=1"]), 6) == [None, None, "503", None, None, None]


def test_a_token_pattern_counts_its_own_requests_only():
    """Other devices neither meet the fault nor use it up."""
    faults = Faults(["Unregistered token=dead* times=1"])
    assert met(faults, 3, token="beef") == [None] * 3
    assert met(faults, 2, token="deadbeef") == ["Unregistered", None]


def test_the_token_endpoint_has_faults_of_its_own():
    """on=oauth leaves messages alone, and the other way round."""
    faults = Faults(["503 on=oauth", "404"])
    assert met(faults, 1, on="oauth") == ["503"]
    assert met(faults, 1) == ["404"]


def test_the_first_fault_that_fits_happens_and_delays_add_up():
    """One answer only, as late as all of them say."""
    faults = Faults(["delay=1", "503 delay=0.5 times=1", "404"])
    assert [(met.what, met.delay) for met in (faults.meet("a"), faults.meet("a"))] == [
        ("503", 1.5),
        ("404", 1),
    ]


def test_faults_that_the_provider_does_not_have_are_refused_whole():
    """A typing error in the second one leaves out the first, too; what was there stays."""

    def check(fault):
        if fault.what == "503x":
            raise BadFault("503x")

    faults = Faults(check=check)
    faults.add("404")
    for change in (faults.add, faults.replace):
        with pytest.raises(BadFault):
            change("503", "503x")
        assert faults.listed() == [Fault("404")]
