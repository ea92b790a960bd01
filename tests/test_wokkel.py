"""Wokkel under our shim: its own test suite, and the traps that `xmpppush._wokkel` has to spring."""

import json
import subprocess
import sys
import textwrap

import pytest
from twisted.words.protocols.jabber import jid

from xmpppush import _wokkel

TESTS_IN_WOKKEL = 657
# Faults of the tests, not of Wokkel: SRVConnector keeps its domain as bytes by now, and assertWarns
# meets a second warning, which the test's own helper gives.
KNOWN_FAILURES = {
    "wokkel.test.test_client.ClientCreatorTest.test_call",
    "wokkel.test.test_xmppim.RosterClientProtocolTest.test_onRosterRemove",
    "wokkel.test.test_xmppim.RosterClientProtocolTest.test_onRosterSet",
}
# It advances its clock by the mean of a delay that Twisted spreads at random.
FLAKY = {"wokkel.test.test_component.ComponentTest.test_stopServiceNoReconnect"}

# Trial needs a process of its own: its tests spin the reactor that pytest-twisted runs already.
# The shim leaves MUC out, whose tests want one module more that Twisted gave up.
RUN_WOKKELS_SUITE = """
    import json, sys, types, warnings
    import constantly
    import xmpppush._wokkel
    constants = types.ModuleType("twisted.python.constants")
    for name in ("Names", "NamedConstant", "Values", "ValueConstant"):
        setattr(constants, name, getattr(constantly, name))
    sys.modules["twisted.python.constants"] = constants
    warnings.simplefilter("ignore", DeprecationWarning)
    import wokkel
    from twisted.trial.reporter import TestResult
    from twisted.trial.runner import TestLoader
    result = TestResult()
    TestLoader().loadPackage(wokkel, recurse=True).run(result)
    json.dump({"run": result.testsRun,
               "failed": sorted(test.id() for test, _ in result.failures + result.errors)}, sys.stdout)
"""


def run_python(code: str, *arguments: str) -> str:
    """What a fresh interpreter prints that runs ``code``; a failing one fails the test."""
    done = subprocess.run(
        [sys.executable, *arguments, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wokkels_own_suite_passes_but_for_the_known_failures():
    """A new Twisted that breaks Wokkel shows here first, test by test."""
    outcome = json.loads(run_python(RUN_WOKKELS_SUITE).splitlines()[-1])
    assert outcome["run"] == TESTS_IN_WOKKEL
    assert set(outcome["failed"]) - FLAKY == KNOWN_FAILURES


def test_importing_the_shim_gives_no_warning():
    """Loading every part of Wokkel that we use is silent even where warnings are errors."""
    run_python("import xmpppush._wokkel", "-W", "error::DeprecationWarning")


def test_every_loaded_module_uses_what_the_shim_gives():
    """Each call of Twisted's ``iteritems`` is a warning, each of its ``internJID`` a leak: both are gone."""
    run_python(
        """
        import sys
        import xmpppush._wokkel as shim
        ours = {**shim._QUIET, "internJID": shim.bounded_intern_jid}
        for name, module in list(sys.modules.items()):
            if name.startswith(("wokkel.", "twisted.words.")):
                for alias, replacement in ours.items():
                    assert vars(module).get(alias, replacement) is replacement, (name, alias)
        """
    )


@pytest.mark.filterwarnings("error")
def test_forms_and_disco_answers_are_made_without_a_warning():
    """The calls that used to warn, ``iteritems`` in forms and disco, are quiet at run time too."""
    form = _wokkel.data_form.Form("submit", formNamespace="urn:example")
    form.makeFields({"service": "fcm", "silent": True})
    assert form.toElement().toXml().count("<field") == 3
    info = _wokkel.disco.DiscoInfo()
    info.append(_wokkel.DiscoIdentity("pubsub", "push"))
    assert ("pubsub", "push") in info.identities


def test_intern_jid_forgets():
    """Twisted keeps every JID that a stranger makes up for ever; ours has a bound."""
    assert jid.internJID is _wokkel.bounded_intern_jid
    assert 0 < _wokkel.bounded_intern_jid.cache_parameters()["maxsize"] <= 65536
    assert jid.JID("user1@example.org/phone").userhostJID() is jid.internJID("user1@example.org")
    assert not vars(jid)["__internJIDs"]


def test_intern_jid_refuses_what_is_no_jid():
    """The replacement raises what Twisted's raises, and keeps nothing of it."""
    before = _wokkel.bounded_intern_jid.cache_info().currsize
    with pytest.raises(jid.InvalidFormat):
        jid.internJID("no spaces@example.org")
    assert _wokkel.bounded_intern_jid.cache_info().currsize == before


def test_wokkel_before_the_shim_is_an_import_error():
    """Whoever imports Wokkel first would get it unpatched; that is said at once."""
    run_python(
        """
        from twisted.python import compat
        compat._PY3 = True
        import wokkel.iwokkel
        try:
            import xmpppush._wokkel
        except ImportError as error:
            assert "xmpppush._wokkel" in str(error)
        else:
            raise SystemExit("no error")
        """
    )
