"""``GET /metrics``: what the parts count, in Prometheus' text format."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import accumulate
from typing import Any, Protocol

from attrs import Factory, define
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from xmpppush import __version__
from xmpppush.admin.health import Check
from xmpppush.metrics import Histogram, Traffic

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4  # which every Prometheus reads


class RowCounts(Protocol):
    """What only the database knows."""

    registrations: int
    deliveries: int


def _none() -> Mapping[Any, Any]:
    return {}


def _zero() -> int:
    return 0


@define
class Figures:
    """
    Where the figures are, to be read at each scrape; a part that is off leaves its defaults.

    Attributes:
        sessions: How many there are.
        traffic: Stanzas of client connections.
        decisions: Of mod_push, by name.
        notifications: Of the bridge, by service and outcome.
        latency: Of the bridge.
        requests: Pool to HTTP status to how many.
        storage: Operation to how long it took.
        backlog: Writes that wait for the disk.
        enddates: Name of a certificate to when it expires.
        checks: What ``/health`` says.
        publishes: Domain of a component to answer (``result`` or an error) to how many.
        attached: Domain of somebody else's component to whether it is attached.
        collectors: Of parts that know Prometheus themselves.
    """

    sessions: Callable[[], int] = _zero
    traffic: Traffic = Factory(Traffic)
    decisions: Mapping[str, int] = Factory(dict)
    notifications: Mapping[Any, int] = Factory(dict)
    latency: Histogram | None = None
    requests: Mapping[str, Mapping[int | str, int]] = Factory(dict)
    storage: Mapping[str, Histogram] = Factory(dict)
    backlog: Callable[[], int] = _zero
    enddates: Callable[[], Mapping[str, datetime]] = _none
    checks: Callable[[], Iterable[Check]] = tuple
    publishes: Mapping[str, Mapping[str, int]] = Factory(dict)
    attached: Callable[[], Mapping[str, bool]] = _none
    collectors: Iterable[Collector] = ()


class _Reader(Collector):
    """Reads `Figures` for one scrape; the parts know nothing of Prometheus."""

    def __init__(self, figures: Figures, rows: RowCounts | None) -> None:
        self._figures = figures
        self._rows = rows

    def collect(self) -> Iterator[Metric]:
        figures, rows = self._figures, self._rows
        yield _gauge("xmpppush_build_info", "Version of xmpppush.", {(__version__,): 1}, "version")
        yield _gauge(
            "xmpppush_healthy",
            "1 if this part works, 0 if it does not; the parts of /health.",
            {(check.part,): int(check.trouble is None) for check in figures.checks()},
            "part",
        )
        yield _gauge("xmpppush_c2s_sessions", "Client sessions with a resource.", {(): figures.sessions()})
        yield _counter(
            "xmpppush_stanzas",
            "Stanzas of client connections, by kind and direction (in: from clients).",
            {
                (kind, direction): number
                for kind, sent in figures.traffic.sent.items()
                for direction, number in (("in", figures.traffic.received[kind]), ("out", sent))
            },
            "kind",
            "direction",
        )
        yield _gauge(
            "xmpppush_push_registrations",
            "Enabled push registrations (XEP-0357), by the database.",
            {(): rows.registrations} if rows else {},
        )
        yield _counter(
            "xmpppush_push_events",
            "Registrations that messages concerned, by what mod_push decided.",
            {(decision,): number for decision, number in figures.decisions.items()},
            "decision",
        )
        yield _gauge(
            "xmpppush_component_attached",
            "1 if this component of a [listen:NAME] is attached, 0 if it is not.",
            {(domain,): int(is_there) for domain, is_there in figures.attached().items()},
            "component",
        )
        yield _counter(
            "xmpppush_component_publishes",
            "Notifications that other XMPP servers published, by component and our answer.",
            {
                (component, answer): number
                for component, answers in figures.publishes.items()
                for answer, number in answers.items()
            },
            "component",
            "answer",
        )
        yield _counter(
            "xmpppush_notifications",
            "Notifications by push service and outcome; postponed counts tries, the others are final.",
            figures.notifications,
            "service",
            "outcome",
        )
        yield _gauge(
            "xmpppush_notifications_queued",
            "Notifications without a final answer yet, by the database.",
            {(): rows.deliveries} if rows else {},
        )
        yield _histogram(
            "xmpppush_notification_latency_seconds",
            "From accepting a message to the push service's final answer.",
            {} if figures.latency is None else {(): figures.latency},
        )
        yield _counter(
            "xmpppush_http_requests",
            "Requests to push services by http_connections pool and HTTP status (none: no answer).",
            {
                (pool, str(status)): number
                for pool, statuses in figures.requests.items()
                for status, number in statuses.items()
            },
            "pool",
            "status",
        )
        yield _histogram(
            "xmpppush_storage_seconds",
            "How long the database took: a write is many rows with one commit, a read is one query.",
            {(operation,): histogram for operation, histogram in figures.storage.items()},
            "operation",
        )
        yield _gauge("xmpppush_storage_backlog", "Writes that wait for the disk.", {(): figures.backlog()})
        yield _gauge(
            "xmpppush_certificate_expiry_timestamp_seconds",
            "When a certificate in use expires, in seconds since the epoch.",
            {(name,): enddate.timestamp() for name, enddate in figures.enddates().items()},
            "name",
        )


def exposition(figures: Figures, rows: RowCounts | None) -> bytes:
    """
    All metrics as text.

    Args:
        rows: ``None``: the database does not answer, and what it alone knows is left out.
    """
    registry = CollectorRegistry()
    registry.register(_Reader(figures, rows))
    for collector in figures.collectors:
        registry.register(collector)
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def _gauge(name: str, text: str, values: Mapping[tuple[str, ...], float], *labels: str) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family


def _counter(name: str, text: str, values: Mapping[tuple[str, ...], float], *labels: str) -> Metric:
    """``name`` is without the ``_total`` that it is shown with."""
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family


def _histogram(name: str, text: str, values: Mapping[tuple[str, ...], Histogram], *labels: str) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, histogram in sorted(values.items(), key=lambda item: item[0]):
        bounds = [*map(str, histogram.bounds), "+Inf"]
        family.add_metric(key, list(zip(bounds, accumulate(histogram.counts), strict=True)), histogram.total)
    return family
