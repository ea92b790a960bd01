"""What the push service counts, and ``GET /metrics`` of its own listener."""

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from xmpppush.errors import DeliveryError
from xmpppush.metrics import Histogram

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4.encode("ascii")

# MongoosePush's, in microseconds.
BOUNDS = (1_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000)
# What did not come from a provider has this category there.
GENERIC = "generic"

Labels = tuple[str, str, str, str]  # error_category, error_reason, service, status


class SendTimes:
    """
    How long notifications took, by what became of them.

    Attributes:
        histograms: Microseconds by MongoosePush's labels. All words are of a fixed set, so there are few.
    """

    def __init__(self) -> None:
        self.histograms: dict[Labels, Histogram] = {}
        self._delivered: dict[str, Histogram] = {}

    def delivered(self, service: str, seconds: float) -> None:
        histogram = self._delivered.get(service)
        if histogram is None:
            histogram = self._delivered[service] = self._of(("", "", service, "success"))
        histogram.observe(seconds * 1e6)

    def failed(self, service: str, error: DeliveryError | None, word: str, seconds: float) -> None:
        """
        Args:
            error: ``None``: it is none of a provider's.
            word: What it is in the API's words.
        """
        said = error.provider_word if error is not None else ""
        labels = (word if said else GENERIC, said or word, service, "error")
        self._of(labels).observe(seconds * 1e6)

    def _of(self, labels: Labels) -> Histogram:
        histogram = self.histograms.get(labels)
        if histogram is None:
            histogram = self.histograms[labels] = Histogram(BOUNDS)
        return histogram


class PushServiceCollector(Collector):
    """Reads the figures for one scrape."""

    def __init__(self, times: SendTimes, pools: Callable[[], Iterable[Any]]) -> None:
        """
        Args:
            pools: Each an `IPool`.
        """
        self._times = times
        self._pools = pools

    def collect(self) -> Iterator[Metric]:
        names = ("error_category", "error_reason", "service", "status")
        sent = HistogramMetricFamily(
            "mongoose_push_notification_send_time_microsecond",
            "Time from a valid request to the provider's answer, in microseconds.",
            labels=names,
        )
        for labels, histogram in sorted(self._times.histograms.items(), key=lambda item: item[0]):
            bounds = [*map(str, histogram.bounds), "+Inf"]
            buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
            sent.add_metric(labels, buckets, histogram.total)
        yield sent
        connections = GaugeMetricFamily(
            "xmpppush_push_pool_connections",
            "Connections of a pool to its provider; up ones take notifications.",
            labels=("service", "pool", "state"),
        )
        expiry = GaugeMetricFamily(
            "xmpppush_push_pool_certificate_expiry_timestamp_seconds",
            "When the certificate of a pool expires, in seconds since the epoch.",
            labels=("service", "pool"),
        )
        for pool in self._pools():
            health, expires = pool.health(), pool.expires()
            connections.add_metric((pool.service, pool.name, "up"), health.connected)
            connections.add_metric((pool.service, pool.name, "down"), health.disconnected)
            if expires is not None:
                expiry.add_metric((pool.service, pool.name), expires)
        yield connections
        yield expiry


def exposition(collector: Collector) -> bytes:
    """These metrics and the process's as Prometheus' text."""
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    return generate_latest(registry)
