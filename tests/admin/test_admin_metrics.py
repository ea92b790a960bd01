"""What Prometheus reads."""

from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace

from prometheus_client.parser import text_string_to_metric_families

from xmpppush.admin.health import Check
from xmpppush.admin.metrics import Figures, exposition
from xmpppush.metrics import Histogram, Traffic

ROWS = SimpleNamespace(registrations=7, deliveries=3)
NAMES = {  # INTERFACE.md's, with the type and labels of each
    "xmpppush_c2s_sessions": ("gauge", set()),
    "xmpppush_stanzas": ("counter", {"kind", "direction"}),
    "xmpppush_push_registrations": ("gauge", set()),
    "xmpppush_push_events": ("counter", {"decision"}),
    "xmpppush_notifications": ("counter", {"service", "outcome"}),
    "xmpppush_notifications_queued": ("gauge", set()),
    "xmpppush_notification_latency_seconds": ("histogram", set()),
    "xmpppush_http_requests": ("counter", {"pool", "status"}),
    "xmpppush_storage_seconds": ("histogram", {"operation"}),
}


def some_figures():
    traffic = Traffic()
    traffic.received.update(message=5, iq=2)
    traffic.written.update({"<mes": 4, "<pre": 1, "<iq ": 2, "<iq>": 1, "<str": 9, "<pro": 9})
    latency, write = Histogram((0.1, 1.0)), Histogram((0.01,))
    for seconds in (0.05, 0.1, 0.5, 20.0):
        latency.observe(seconds)
    write.observe(0.004)
    return Figures(
        sessions=lambda: 2,
        traffic=traffic,
        decisions=Counter(push=3, online=1),
        notifications=Counter({("fcm", "delivered"): 3, ("apns", "given-up"): 1}),
        latency=latency,
        requests={"push": Counter({200: 3, "none": 1})},
        storage={"write": write},
        backlog=lambda: 12,
        enddates=lambda: {"[mongoosepush]": datetime(2027, 1, 1, tzinfo=UTC)},
        attached=lambda: {"muc.localhost": True, "irc.localhost": False},
        checks=lambda: [Check("storage"), Check('listen:"a"', "not listening")],
    )


def families(figures, rows=ROWS):
    text = exposition(figures, rows).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(families):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }


def test_the_contracts_names():
    """Each metric has the name, type and labels that operators' dashboards rely on."""
    found = families(some_figures())
    for name, (kind, labels) in NAMES.items():
        assert found[name].type == kind, name
        assert found[name].documentation
        assert {label for sample in found[name].samples for label in sample.labels} - {"le"} == labels, name
        if kind == "counter":
            assert {sample.name for sample in found[name].samples} == {f"{name}_total"}


def test_the_figures_arrive():
    """Every number where it belongs."""
    found = values(families(some_figures()))
    for key, value in {
        ("xmpppush_c2s_sessions",): 2,
        ("xmpppush_stanzas_total", ("direction", "in"), ("kind", "message")): 5,
        ("xmpppush_stanzas_total", ("direction", "in"), ("kind", "presence")): 0,
        ("xmpppush_stanzas_total", ("direction", "out"), ("kind", "message")): 4,
        ("xmpppush_stanzas_total", ("direction", "out"), ("kind", "iq")): 3,
        ("xmpppush_push_registrations",): 7,
        ("xmpppush_push_events_total", ("decision", "push")): 3,
        ("xmpppush_notifications_total", ("outcome", "given-up"), ("service", "apns")): 1,
        ("xmpppush_notifications_queued",): 3,
        ("xmpppush_http_requests_total", ("pool", "push"), ("status", "200")): 3,
        ("xmpppush_http_requests_total", ("pool", "push"), ("status", "none")): 1,
        ("xmpppush_storage_seconds_count", ("operation", "write")): 1,
        ("xmpppush_storage_backlog",): 12,
        ("xmpppush_component_attached", ("component", "muc.localhost")): 1,
        ("xmpppush_component_attached", ("component", "irc.localhost")): 0,
        ("xmpppush_healthy", ("part", "storage")): 1,
        ("xmpppush_healthy", ("part", 'listen:"a"')): 0,
        ("xmpppush_certificate_expiry_timestamp_seconds", ("name", "[mongoosepush]")): 1798761600,
    }.items():
        assert found[key] == value, key
    assert any(name == "xmpppush_build_info" for name, *_ in found)


def test_a_histogram_is_cumulative():
    """A bound belongs to its bucket, and the last bucket holds all."""
    found = values(families(some_figures()))
    name = "xmpppush_notification_latency_seconds"
    buckets = [found[f"{name}_bucket", ("le", bound)] for bound in ("0.1", "1.0", "+Inf")]
    assert (buckets, found[f"{name}_count",]) == ([2, 3, 4], 4)
    assert found[f"{name}_sum",] == 20.65


def test_roles_that_are_off():
    """Nothing is made up for them; the names are there all the same."""
    found = families(Figures(), None)
    assert NAMES.keys() <= found.keys()
    assert found["xmpppush_push_registrations"].samples == []
    assert found["xmpppush_push_events"].samples == []


def test_the_process_itself():
    """Memory, CPU and open files come with it."""
    assert "process_resident_memory_bytes" in families(Figures())


def test_the_clock_was_set_back():
    """No negative latencies."""
    histogram = Histogram((1.0,))
    histogram.observe(-5.0)
    assert (histogram.counts, histogram.total) == ([1, 0], 0.0)
