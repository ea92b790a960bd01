"""``python -m benchmarks``: see ``--help`` of each command and README.rst."""

import json
import pstats
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import click
from twisted.internet import task

from benchmarks import component as component_run
from benchmarks import outage as outages
from benchmarks import parts
from benchmarks.gateway import GatewayResult, measure_gateway
from benchmarks.instructions import LOAD, count
from benchmarks.pipeline import Load, Result, Setup, measure
from benchmarks.server import ServerFailed
from benchmarks.tally import percentile
from benchmarks.yardstick import FLOORS_YARDSTICK, yardstick_on

FIGURES = (
    ("pushes/s", "pushes_per_second", 1.0, "{:,.0f}"),
    ("CPU of the server, µs/push", "cpu_us", 1.0, "{:.0f}"),
    ("  of it in the reactor's thread", "reactor_us", 1.0, "{:.0f}"),
    ("core busy", "busy", 100.0, "{:.0f} %"),
    ("first push after, ms", "first", 1e3, "{:.0f}"),
    ("latency p50, ms", "p50", 1e3, "{:.1f}"),
    ("latency p99, ms", "p99", 1e3, "{:.1f}"),
    ("RSS, MiB", "rss", 1 / 2**20, "{:.0f}"),
    ("missing", "missing", 1.0, "{:.0f}"),
    ("duplicates", "duplicates", 1.0, "{:.0f}"),
    ("strange requests", "strange", 1.0, "{:.0f}"),
    ("stanza errors", "errors", 1.0, "{:.0f}"),
)

GATEWAY_FIGURES = (
    ("requests/s", "requests_per_second", 1.0, "{:,.0f}"),
    ("CPU of the server, µs/request", "cpu_us", 1.0, "{:.0f}"),
    ("core busy", "busy", 100.0, "{:.0f} %"),
    ("latency p50, ms", "p50", 1e3, "{:.1f}"),
    ("latency p99, ms", "p99", 1e3, "{:.1f}"),
    ("RSS, MiB", "rss", 1 / 2**20, "{:.0f}"),
    ("missing", "missing", 1.0, "{:.0f}"),
    ("strange requests", "strange", 1.0, "{:.0f}"),
    ("refused", "refused", 1.0, "{:.0f}"),
)


@click.group()
def main() -> None:
    """What a push costs, and its parts."""


@main.command()
@click.option("--messages", default=Load().messages, show_default=True, help="In each run.")
@click.option("--users", default=Load().users, show_default=True, help="Absent users with push enabled.")
@click.option(
    "--registrations",
    default=0,
    help="In the store from the beginning; --users of them, at random, get messages.",
)
@click.option("--senders", default=Load().senders, show_default=True, help="Connections that write.")
@click.option("--in-flight", default=0, help="Pushes outstanding at the most; default: as TCP lets.")
@click.option("--rate", default=0.0, help="Messages a second; default: as fast as they are taken.")
@click.option("--runs", default=Load().runs, show_default=True, help="On the same server.")
@click.option("--agent", type=click.Choice(["fast", "stock"]), default="fast", show_default=True)
@click.option("--api-version", type=click.Choice(["v1", "v2", "v3"]), default="v3", show_default=True)
@click.option("--connections", default=Setup().connections, show_default=True, help="max_http_connections.")
@click.option("--delay", default=0.0, help="Seconds that the push service takes to answer.")
@click.option("--profile", type=click.Path(path_type=Path), help="cProfile the server into this file.")
@click.option("--embedded", is_flag=True, help="Through our own push service to APNs (HTTP/2, TLS).")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON instead of the table.")
def pipeline(
    messages: int,
    users: int,
    registrations: int,
    senders: int,
    in_flight: int,
    rate: float,
    runs: int,
    agent: str,
    api_version: str,
    connections: int,
    delay: float,
    profile: Path | None,
    embedded: bool,
    as_json: bool,
) -> None:
    """The whole chain: c2s in, a MongoosePush stand-in out, a server process on a core of its own."""
    if registrations and users > registrations:
        raise click.UsageError("more --users than --registrations")
    load = Load(messages, users, registrations, senders, in_flight, rate, runs)
    setup = Setup(
        agent,
        api_version,
        connections,
        delay=delay,
        profile=profile.absolute() if profile else None,
        embedded=embedded,
    )
    try:
        result = measure(load, setup)
    except ServerFailed as error:
        raise click.ClickException(str(error)) from None
    click.echo(json.dumps(result.as_json()) if as_json else table(result))
    if profile:
        click.echo(f"\n{profile}: under cProfile all figures above are too high. Costliest functions:")
        pstats.Stats(str(profile), stream=sys.stdout).sort_stats("tottime").print_stats(30)
    if not result.is_clean:
        click.echo(f"\nThe server's last words:\n{result.log}", err=True)
        sys.exit(1)


EPISODE = (
    ("fault", lambda each: each.fault),
    ("collapse", lambda each: "yes" if each.collapse else "no"),
    ("messages", lambda each: f"{each.messages:,}"),
    ("pushes", lambda each: f"{each.pushes:,}"),
    ("requests", lambda each: f"{each.requests:,}"),
    ("most tries", lambda each: f"{each.tries}"),
    ("lost", lambda each: f"{each.lost}"),
    ("twice", lambda each: f"{each.duplicates}"),
    ("overtaken", lambda each: f"{each.overtaken}"),
    ("ping p50", lambda each: milliseconds(each.pings, 50)),
    ("p99", lambda each: milliseconds(each.pings, 99)),
    ("max", lambda each: milliseconds(each.pings, 100)),
    ("p99 after", lambda each: milliseconds(each.pings_after, 99)),
    ("recovered", lambda each: f"{each.recovered:.1f} s"),
    ("log lines", lambda each: f"{len(each.lines)}"),
)


@main.command()
@click.argument("faults", nargs=-1, type=click.Choice(list(outages.FAULTS)))
@click.option("--rate", default=outages.Plan().rate, show_default=True, help="Messages a second.")
@click.option("--lasting", default=outages.Plan().lasting, show_default=True, help="Seconds of trouble.")
@click.option(
    "--users", default=outages.Plan().users, show_default=True, help="Absent users with push enabled."
)
@click.option("--max-attempts", default=outages.Plan().max_attempts, show_default=True)
@click.option("--collapse/--no-collapse", default=False, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each in place of the table.")
def outage(
    faults: tuple[str, ...],
    rate: float,
    lasting: float,
    users: int,
    max_attempts: int,
    collapse: bool,
    as_json: bool,
) -> None:
    """A push service in trouble under load (all FAULTS by default), and how others' pings fare meanwhile."""
    plan = outages.Plan(rate=rate, lasting=lasting, users=users, max_attempts=max_attempts, collapse=collapse)
    if not as_json:
        click.echo("".join(f"{name:>10}" for name, _ in EPISODE))
    clean = True
    for fault in faults or outages.FAULTS:
        try:
            episode = outages.measure(fault, plan)
        except ServerFailed as error:
            raise click.ClickException(str(error)) from None
        clean = clean and episode.is_clean
        if as_json:
            click.echo(json.dumps(episode.as_json()))
        else:
            click.echo("".join(f"{figure(episode):>10}" for _, figure in EPISODE))
    if not clean:
        sys.exit(1)


def milliseconds(ordered: Sequence[float], percent: float) -> str:
    """A percentile of seconds."""
    return f"{percentile(ordered, percent) * 1e3:.1f} ms"


@main.command()
@click.option("--requests", default=20_000, show_default=True, help="In each run.")
@click.option("--runs", default=3, show_default=True)
@click.option("--connections", default=50, show_default=True, help="With one request each at a time.")
@click.option("--profile", type=click.Path(path_type=Path), help="cProfile the server into this file.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON instead of the table.")
def gateway(requests: int, runs: int, connections: int, profile: Path | None, as_json: bool) -> None:
    """The push service alone: HTTPS REST in, APNs over HTTP/2 and TLS out."""
    try:
        result = measure_gateway(requests, runs, connections, profile.absolute() if profile else None)
    except ServerFailed as error:
        raise click.ClickException(str(error)) from None
    click.echo(json.dumps(result.as_json()) if as_json else gateway_table(result))
    if profile:
        pstats.Stats(str(profile), stream=sys.stdout).sort_stats("tottime").print_stats(40)
    if not result.is_clean:
        click.echo(f"\nThe server's last words:\n{result.log}", err=True)
        sys.exit(1)


@main.command()
@click.option("--messages", default=Load().messages, show_default=True, help="In each run.")
@click.option("--users", default=Load().users, show_default=True, help="Nodes that are published to in turn.")
@click.option("--in-flight", default=0, help="Pushes outstanding at the most; default: as TCP lets.")
@click.option("--rate", default=0.0, help="Publishes a second; default: as fast as they are taken.")
@click.option("--runs", default=Load().runs, show_default=True, help="On the same connection.")
@click.option("--delay", default=0.0, help="Seconds that the push service takes to answer.")
@click.option(
    "--style", type=click.Choice(sorted(component_run.STYLES)), default="prosody", show_default=True
)
@click.option("--profile", type=click.Path(path_type=Path), help="cProfile the server into this file.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON instead of the table.")
def component(
    messages: int,
    users: int,
    in_flight: int,
    rate: float,
    runs: int,
    delay: float,
    style: str,
    profile: Path | None,
    as_json: bool,
) -> None:
    """As the app server of an XMPP server that publishes over XEP-0114."""
    load = Load(messages=messages, users=users, senders=1, in_flight=in_flight, rate=rate, runs=runs)
    setup = Setup(delay=delay, profile=profile.absolute() if profile else None)
    try:
        result = component_run.measure(load, setup, style)
    except ServerFailed as error:
        raise click.ClickException(str(error)) from None
    click.echo(json.dumps(result.as_json()) if as_json else table(result))
    if profile:
        pstats.Stats(str(profile), stream=sys.stdout).sort_stats("tottime").print_stats(40)
    if not result.is_clean:
        click.echo(f"\nThe server's last words:\n{result.log}", err=True)
        sys.exit(1)


@main.command()
@click.option("--messages", default=LOAD.messages, show_default=True)
@click.option("--users", default=LOAD.users, show_default=True, help="As for pipeline.")
@click.option("--registrations", default=0, help="As for pipeline.")
@click.option("--component", "of_component", is_flag=True, help="Of 'component' in place of 'pipeline'.")
def instructions(messages: int, users: int, registrations: int, of_component: bool) -> None:
    """Instructions for each push, counted by valgrind: the same however busy the machine is."""
    if registrations and users > registrations:
        raise click.UsageError("more --users than --registrations")
    try:
        of = component_run.count if of_component else count
        click.echo(f"{of(messages, users, registrations) / 1000:,.1f} thousand instructions a push")
    except ServerFailed as error:
        raise click.ClickException(str(error)) from None


@main.command()
def parse() -> None:
    """A chat message into an element, beside domish; addresses."""
    show([*parts.parse(), *parts.jids()])


@main.command()
def http() -> None:
    """A POST over plain HTTP, our agent beside Twisted's."""
    task.react(lambda reactor: parts.http(reactor).addCallback(show))


@main.command()
def storage() -> None:
    """A message and its delivery into SQLite, and out again."""
    task.react(lambda reactor: parts.storage(reactor).addCallback(show))


def show(figures: Iterable[parts.Figure]) -> None:
    """Print them, and the yardstick of this moment."""
    for label, microseconds in (*figures, ("yardstick", yardstick_on(None))):
        click.echo(f"{label:34}{microseconds:10.1f} µs")


def table(result: Result) -> str:
    """The runs side by side, the median at the right."""
    lines = [row("", [f"run {number + 1}" for number in range(len(result.runs))], "median")]
    for label, name, factor, form in FIGURES:
        values = [form.format(getattr(run, name) * factor) for run in result.runs]
        lines.append(row(label, values, form.format(result.middle(name) * factor)))
    lines.append(f"start: {result.start:.1f} s, {result.rss_at_start / 2**20:.0f} MiB RSS")
    lines.append(f"after the stop: {result.queued} deliveries queued, {result.offline} messages offline")
    lines.append(yardstick_line(result.yardstick, result.middle("cpu_us")))
    return "\n".join(lines)


def gateway_table(result: GatewayResult) -> str:
    """As `table`."""
    lines = [row("", [f"run {number + 1}" for number in range(len(result.runs))], "median")]
    for label, name, factor, form in GATEWAY_FIGURES:
        values = [form.format(getattr(run, name) * factor) for run in result.runs]
        lines.append(row(label, values, form.format(result.middle(name) * factor)))
    lines.append(yardstick_line(result.yardstick, result.middle("cpu_us")))
    return "\n".join(lines)


def yardstick_line(measured: float, cpu: float) -> str:
    """How quick the machine was, so that figures of different days can be compared."""
    return (
        f"yardstick: {measured:.0f} µs, {FLOORS_YARDSTICK:.0f} when FLOORS.md was measured;"
        f" at that speed {cpu * FLOORS_YARDSTICK / measured:.0f} µs CPU a push"
    )


def row(label: str, values: list[str], middle: str) -> str:
    return f"{label:34}" + "".join(f"{value:>10}" for value in [*values, middle])


if __name__ == "__main__":
    main()
