"""What /health answers."""

from datetime import UTC, datetime

from xmpppush.admin.health import Check, certificate_checks, report


def test_all_is_well():
    """200, and every part is named."""
    assert report([Check("storage"), Check("listen:c2s")]) == (
        200,
        {
            "status": "pass",
            "failing": [],
            "checks": {"storage": {"status": "pass"}, "listen:c2s": {"status": "pass"}},
        },
    )


def test_a_part_fails():
    """503, with the part and why."""
    status, body = report([Check("storage", "disk full"), Check("push service")])
    assert status == 503
    assert (body["status"], body["failing"]) == ("fail", ["storage"])
    assert body["checks"]["storage"] == {"status": "fail", "reason": "disk full"}
    assert body["checks"]["push service"] == {"status": "pass"}


def test_certificates_expire():
    """From the second on that they name."""
    enddates = {
        "localhost": datetime(2026, 1, 2, tzinfo=UTC),
        "[mongoosepush]": datetime(2027, 1, 1, tzinfo=UTC),
    }
    end = enddates["localhost"].timestamp()
    before, after = list(certificate_checks(enddates, end - 1)), list(certificate_checks(enddates, end))
    assert [check.trouble for check in before] == [None, None]
    assert after == [
        Check("certificate localhost", "expired on 2026-01-02"),
        Check("certificate [mongoosepush]"),
    ]
