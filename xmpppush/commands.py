"""
The ``xmpppush`` command.

Where a server runs with the configuration's ``data_dir`` a command asks it, through its control
socket; else it works on the storage itself. What goes wrong is one line on standard error and exit
status 1 (2: the command line itself was wrong), never a traceback.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from attrs import frozen
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from xmpppush import __version__, control
from xmpppush.config.reader import load
from xmpppush.config.sections import Config, MongoosePushSection
from xmpppush.config.topology import describe
from xmpppush.errors import ConfigError, PushError
from xmpppush.interfaces import ITrace
from xmpppush.jids import BadJid, parse_jid
from xmpppush.model import Account, ScramKeys, TraceNote
from xmpppush.operations import ON_STORAGE, NeedsServer, pack_account, perform
from xmpppush.options import DEFAULT_CONFIG
from xmpppush.server.sasl import derive_keys
from xmpppush.storage import open_inline
from xmpppush.storage.migrate import current, upgrade
from xmpppush.stories import Story, as_values, is_under_way, stories_of, told
from xmpppush.testing.emulate import emulate
from xmpppush.trace import NO_TRACE, Trace, node_name

T = TypeVar("T")

MAX_PROBLEMS = 20  # lines about one batch file


class CommandError(PushError):
    """The command cannot do this; the text is all that is said."""


# Asking the server, or doing it.


@frozen
class Offline:
    """The application that operations see where no server runs."""

    config: Config
    storage: Any
    trace: ITrace
    push: None = None
    sandbox: None = None
    trouble: str = "no server is running"


def ask(config: Config, operation: str, patience: float = 5.0, **arguments: Any) -> Any:
    """
    Let the running server do it or, where there is none, do it here.

    Args:
        patience: Seconds to wait for a server that is just starting or stopping.

    Raises:
        PushError: What it has to say.
    """
    data_dir = config.server.data_dir
    deadline = time.monotonic() + patience
    while True:
        try:
            return control.call(data_dir, operation, **arguments)
        except control.NoServer as error:
            if not control.is_claimed(data_dir):
                if operation not in ON_STORAGE:
                    raise NeedsServer(f"{error}; start it first") from None
                return do_here(config, operation, arguments)
            if time.monotonic() > deadline:
                raise control.ControlError(
                    f"a server is starting or stopping with {data_dir}; try again"
                ) from None
        time.sleep(0.1)


def do_here(config: Config, operation: str, arguments: Mapping[str, Any]) -> Any:
    refuse_foreign(config.server.data_dir)
    storage = open_inline(config.storage, config.server.data_dir)
    clock = Clock()  # stands still: a command is over in a moment
    clock.advance(time.time())
    trace = Trace(storage.traces, clock, config.trace.keep, config.trace.max_notes)
    application = Offline(config, storage, trace if config.trace.max_notes else NO_TRACE)
    try:
        result = at_once(Deferred.fromCoroutine(perform(application, operation, dict(arguments))))
        at_once(trace.flush())
        return result
    finally:
        storage.close()


def refuse_foreign(data_dir: Path) -> None:
    """
    Root can write to the server's files, but those it adds the server could not open any more.

    Raises:
        CommandError: ``data_dir`` belongs to somebody else.
    """
    if data_dir.exists() and data_dir.stat().st_uid != os.geteuid():
        raise CommandError(
            f"{data_dir}: belongs to {data_dir.owner()}: run this as that user, or while the server runs"
        )


def at_once(deferred: "Deferred[T]") -> T:
    """The result of a Deferred that has fired already: inline storage has no others."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    if not results:
        raise RuntimeError("an operation on inline storage waits for something")
    if isinstance(results[0], Failure):
        results[0].raiseException()
    result: T = results[0]
    return result


def read_config(context: click.Context) -> Config:
    return load(Path(context.find_root().params["config"]), os.environ)


# Accounts.


def local_account(config: Config, text: str) -> str:
    """
    The prepared bare JID of an account that this server may have.

    Raises:
        CommandError: It is none.
    """
    try:
        jid = parse_jid(text)
    except BadJid:
        raise CommandError(f"{printable(text)}: not a JID, such as alice@{an_example(config)}") from None
    if not jid.user or jid.resource:
        raise CommandError(f"{printable(text)}: not an account, such as alice@{an_example(config)}")
    if jid.host not in config.server.domains:
        raise CommandError(
            f"{printable(text)}: {jid.host} is not served here; [server] domains has:"
            f" {', '.join(config.server.domains) or 'none'}"
        )
    account: str = jid.userhost()
    return account


def an_example(config: Config) -> str:
    return next(iter(config.server.domains), "example.org")


def keys_of(password: str) -> Mapping[str, ScramKeys]:
    """
    The keys to keep of a password.

    Raises:
        CommandError: It is empty, or holds what no password may (SASLprep, RFC 4013).
    """
    if not password:
        raise CommandError("an empty password is no password")
    try:
        return derive_keys(password)
    except (PushError, ValueError):
        # The cause would quote the password.
        raise CommandError("this password has characters that no password may have (RFC 4013)") from None


def ask_password() -> str:
    """From the terminal, twice, or the first line of standard input where that is none."""
    if sys.stdin.isatty():
        password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, default="")
        return password
    return sys.stdin.readline().rstrip("\r\n")


@frozen
class Line:
    """A line of a batch file: its number, the prepared bare JID, the password."""

    number: int
    jid: str
    password: str

    def __repr__(self) -> str:
        return f"Line({self.number}, {self.jid!r})"


def read_batch(
    octets: bytes, account_of: Callable[[str], str], taken: frozenset[str] = frozenset()
) -> tuple[list[Line], list[str]]:
    """
    Read a batch file: ``JID <tab> password`` in each line; empty lines count for nothing.

    Args:
        account_of: Text to prepared bare JID, raises `CommandError`.
        taken: Accounts that are there already.

    Returns:
        The lines, and the problems: one line each, with the number of its line.
    """
    lines: list[Line] = []
    problems: list[str] = []
    seen: dict[str, int] = {}
    for number, raw in enumerate(octets.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        raw = raw.removesuffix(b"\r")
        if not raw:
            continue
        try:
            text, tab, password = raw.decode().partition("\t")
            if not tab:
                raise CommandError("not a JID, a tab and a password")
            if not password:
                raise CommandError(f"{printable(text)}: no password")
            jid = account_of(text)
            if jid in seen:
                raise CommandError(f"{jid}: is in line {seen[jid]} already")
            if jid in taken:
                raise CommandError(f"{jid}: there is such an account already")
        except UnicodeDecodeError:
            problems.append(f"line {number}: not UTF-8")
        except CommandError as error:
            problems.append(f"line {number}: {error}")
        else:
            seen[jid] = number
            lines.append(Line(number, jid, password))
    return lines, problems


def _keys_or_problem(password: str) -> Mapping[str, ScramKeys] | str:
    try:
        return keys_of(password)
    except CommandError as error:
        return str(error)


def derive_all(lines: Sequence[Line], now: float) -> Iterator[Account | str]:
    """
    The accounts of the lines, in their order; a problem instead where a password is none.

    A key takes milliseconds of hashing on purpose. Python's lock is released meanwhile, so threads
    use all cores.
    """
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        try:
            results = executor.map(_keys_or_problem, [line.password for line in lines])
            for line, result in zip(lines, results, strict=True):
                if isinstance(result, str):
                    yield f"line {line.number}: {line.jid}: {result}"
                else:
                    yield Account(line.jid, result, now)
        finally:  # after Ctrl-C nothing more of it is wanted
            executor.shutdown(wait=False, cancel_futures=True)


def add_batch(config: Config, octets: bytes) -> int:
    """
    Add all accounts of a batch file, or none.

    Raises:
        ConfigError: The lines with their problems.
        PushError: What the storage or the server has to say.
    """
    taken = frozenset(ask(config, "accounts.list"))
    lines, problems = read_batch(octets, lambda text: local_account(config, text), taken)
    refuse_batch(problems)
    derived = list(
        track(
            derive_all(lines, time.time()),
            description="Deriving keys",
            total=len(lines),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
    )
    refuse_batch([problem for problem in derived if isinstance(problem, str)])
    accounts = [pack_account(account) for account in derived if isinstance(account, Account)]
    return int(ask(config, "accounts.add", accounts=accounts)) if accounts else 0


def refuse_batch(problems: Sequence[str]) -> None:
    if problems:
        more = len(problems) - MAX_PROBLEMS
        raise ConfigError(
            [
                *problems[:MAX_PROBLEMS],
                *([f"... and {more} more"] if more > 0 else []),
                "no account was added",
            ]
        )


# What is printed.


def printable(text: str) -> str:
    """Text of strangers, such as the name of a node, without what would steer the terminal."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def shortened(token: str) -> str:
    """As much of a device token as tells it from others."""
    return f"{token[: min(6, len(token) // 3)]}..." if token else ""


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for people on a terminal, lines with tabs for programs."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(map(printable, row)))
        return
    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in row))
    Console().print(table)


@contextmanager
def one_line_errors() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        _fail(error.problems)
    except PushError as error:
        _fail([" ".join(str(error).split())])
    except BrokenPipeError:  # `| head`: click knows what to do
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail([f"{where}{error.strerror or error}"])


def _fail(problems: Iterable[str]) -> None:
    for problem in problems:
        click.echo(problem, err=True)
    raise SystemExit(1)


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        with one_line_errors():
            return super().invoke(ctx)


# The commands.


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-c", "--config", default=DEFAULT_CONFIG, show_default=True, help="The server's configuration.")
@click.version_option(__version__, prog_name="xmpppush")
def main(config: str) -> None:
    """Look after an xmpppush server: accounts, push registrations, database."""


@main.command("check-config")
@click.pass_context
def check_config(context: click.Context) -> None:
    """Check the configuration and print what it makes of the server."""
    config = read_config(context)
    if config.mongoosepush is not None:
        check_credentials(config.mongoosepush)
    for line in (*describe(config), *config.notices):
        click.echo(line)


def check_credentials(section: MongoosePushSection) -> None:
    """
    Read the push service's certificates, keys and accounts, as a start does; nothing is connected to.

    Raises:
        ConfigError: Some cannot be used.
    """
    from twisted.internet import reactor

    from xmpppush.mongoosepush.api_keys import read_api_keys
    from xmpppush.mongoosepush.pools import make_pools

    make_pools(section, reactor)
    if section.api_keys is not None:
        read_api_keys(section.api_keys)


@main.group()
def user() -> None:
    """Accounts."""


@user.command("add")
@click.argument("jid", required=False)
@click.option("--password", help="Visible to other users of the machine while it runs; else it is asked for.")
@click.option(
    "--batch", type=click.File("rb"), help="A file of lines: JID, tab, password. '-': standard input."
)
@click.pass_context
def user_add(context: click.Context, jid: str | None, password: str | None, batch: Any) -> None:
    """
    Add the account JID, or all of a file.

    Where a line of the file is bad, none of its accounts is added.
    """
    if (jid is None) == (batch is None):
        raise click.UsageError("one of JID and --batch, please")
    if batch is not None and password is not None:
        raise click.UsageError("the passwords of --batch are in its file")
    config = read_config(context)
    if batch is not None:
        count = add_batch(config, batch.read())
        click.echo(f"{count} account{'' if count == 1 else 's'} added")
        return
    account = local_account(config, jid or "")
    keys = keys_of(ask_password() if password is None else password)
    ask(config, "accounts.add", accounts=[pack_account(Account(account, keys, time.time()))])
    click.echo(f"{account} added")


@user.command("passwd")
@click.argument("jid")
@click.option("--password", help="Visible to other users of the machine while it runs; else it is asked for.")
@click.pass_context
def user_passwd(context: click.Context, jid: str, password: str | None) -> None:
    """Give the account JID a new password."""
    config = read_config(context)
    account = local_account(config, jid)
    keys = keys_of(ask_password() if password is None else password)
    if not ask(config, "accounts.replace", account=pack_account(Account(account, keys, time.time()))):
        raise CommandError(f"{account}: there is no such account")
    click.echo(f"{account} has a new password")


@user.command("remove")
@click.argument("jid")
@click.pass_context
def user_remove(context: click.Context, jid: str) -> None:
    """Remove the account JID and all that is its."""
    config = read_config(context)
    # Not `local_account`: a domain that is no longer served may have left accounts behind.
    account = bare_account(jid)
    if not ask(config, "accounts.remove", jid=account):
        raise CommandError(f"{account}: there is no such account")
    click.echo(f"{account} removed")


@user.command("list")
@click.pass_context
def user_list(context: click.Context) -> None:
    """List the accounts."""
    for account in ask(read_config(context), "accounts.list"):
        click.echo(printable(account))


@main.group()
def push() -> None:
    """Push registrations (XEP-0357)."""


@push.command("list")
@click.argument("jid", required=False)
@click.option(
    "--show-tokens", is_flag=True, help="Device tokens in full; who has one may write to the device."
)
@click.pass_context
def push_list(context: click.Context, jid: str | None, show_tokens: bool) -> None:
    """List the registrations, of all accounts or of JID."""
    config = read_config(context)
    account = None if jid is None else bare_account(jid)
    print_table(
        ("account", "resource", "pubsub", "node", "service", "device", "enabled", "errors", "state"),
        [
            (
                row["account"],
                row["resource"],
                row["pubsub"],
                row["node"] if show_tokens else node_name(row["node"]),
                row["service"],
                row["device_id"] if show_tokens else shortened(row["device_id"]),
                moment(row["created"]),
                str(row["errors"]),
                state_of(row),
            )
            for row in ask(config, "push.list", account=account)
        ],
    )


def state_of(row: Mapping[str, Any]) -> str:
    """As an operator asks for it: what it is, until when, and why."""
    if row["state"] == "active":
        return "active"
    return f"{row['state']} until {moment(row['next_try'])}: {row['reason']}"


def moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


@push.command("disable")
@click.argument("jid")
@click.argument("pubsub_jid", required=False)
@click.argument("node", required=False)
@click.pass_context
def push_disable(context: click.Context, jid: str, pubsub_jid: str | None, node: str | None) -> None:
    """
    Forget registrations of JID.

    All of them, those of PUBSUB_JID, or that of NODE there.
    """
    config = read_config(context)
    pubsub = None if pubsub_jid is None else bare_jid(pubsub_jid)
    count = ask(config, "push.disable", account=bare_account(jid), pubsub=pubsub, node=node)
    click.echo(f"{count} registration{'' if count == 1 else 's'} disabled")


@push.command("test")
@click.argument("jid")
@click.option("--body", help="What the notification says.")
@click.pass_context
def push_test(context: click.Context, jid: str, body: str | None) -> None:
    """
    Send a test notification to JID's devices.

    To every device that has enabled push, the way a real notification goes. Status 0: the push service took
    all of them; one that has to wait is sent later, and makes the status 1 like one that is refused.
    """
    config = read_config(context)
    account = bare_account(jid)
    outcomes = ask(config, "push.test", account=account, body=body)
    if not outcomes:
        raise CommandError(f"{account}: no device has enabled push")
    for line, _ in outcomes:
        click.echo(printable(line))
    missing = sum(not taken for _, taken in outcomes)
    if missing:
        raise CommandError(
            f"{account}: not taken by the push service for {missing} of {len(outcomes)} devices"
        )


def bare_account(text: str) -> str:
    """
    The prepared bare JID of an account, of whatever domain.

    Raises:
        CommandError: It is none.
    """
    bare = bare_jid(text)
    if "@" not in bare:
        raise CommandError(f"{printable(text)}: not an account, such as alice@localhost")
    return bare


@push.command("trace")
@click.argument("jid", required=False)
@click.option("--id", "trace", help="One story, by the id in brackets.")
@click.option("--last", default=10, show_default=True, type=click.IntRange(1, 1000), help="How many stories.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each story.")
@click.pass_context
def push_trace(context: click.Context, jid: str | None, trace: str | None, last: int, as_json: bool) -> None:
    """Explain why pushes to JID did or did not arrive; the newest at the end."""
    if (jid is None) == (trace is None):
        raise click.UsageError("one of JID and --id, please")
    config = read_config(context)
    account = None if jid is None else traced_jid(config, jid)
    trace = trace.strip("[] ") if trace is not None else None
    # Of the uneventful ones many make one.
    answer = ask(config, "push.trace", account=account, id=trace, stories=last * 20)
    if not answer["keep"]:
        click.echo("[trace] max_notes is 0: nothing is noted any more", err=True)
    stories = stories_of(TraceNote(*note) for note in answer["notes"])
    if trace is not None and not stories:
        raise CommandError(f"{printable(trace)}: no such id, or it is older than [trace] keep")
    for story in stories[-last:]:
        # ASCII, so nothing in it steers the terminal.
        for line in (json.dumps(as_values(story)),) if as_json else map(printable, told(story)):
            click.echo(line)
    for line in remarks(config, account, answer, stories):
        click.echo(printable(line), err=as_json)


def traced_jid(config: Config, text: str) -> str:
    """
    Under what its pushes are noted: a bare JID or, of what foreign servers publish, our pubsub host.

    Raises:
        CommandError: It is neither.
    """
    bare = bare_jid(text)
    hosts = config.mod_pubsub.hosts if config.mod_pubsub is not None else ()
    if "@" in bare or bare in hosts:
        return bare
    raise CommandError(f"{printable(text)}: not an account, such as alice@{an_example(config)}")


def remarks(
    config: Config, account: str | None, answer: Mapping[str, Any], stories: Sequence[Story]
) -> Iterator[str]:
    """
    What is to be said below the stories: why there are none, and what holds pushes up now.

    Raises:
        CommandError: Nobody can tell anything about this JID.
    """
    if account is not None and "@" in account:
        count, domain = answer["registrations"], account.partition("@")[2]
        if not count and not stories and not answer["exists"]:
            if domain not in config.server.domains:
                local_account(config, account)  # says what is served
            raise CommandError(
                f"{account}: there is no such account; 'xmpppush user list' shows those there are"
            )
        if not count:
            yield (
                f"{account} has no push registration: its messages push nothing until its client enables push"
            )
        elif not stories:
            yield (
                f"nothing is noted about {account}: no message met its"
                f" {count} registration{'' if count == 1 else 's'}"
            )
    elif not stories:
        yield f"nothing is noted about {account}"
    if answer["trouble"] and any(is_under_way(story) for story in stories):
        yield f"what is on its way waits: {answer['trouble']}"


def bare_jid(text: str) -> str:
    """Raises `CommandError` where it is none, or has a resource."""
    try:
        jid = parse_jid(text)
    except BadJid:
        raise CommandError(f"{printable(text)}: not a JID") from None
    if jid.resource:
        raise CommandError(f"{printable(text)}: a JID without resource, please")
    bare: str = jid.userhost()
    return bare


@main.group()
def db() -> None:
    """The database."""


@db.command("current")
@click.pass_context
def db_current(context: click.Context) -> None:
    """Print the schema's version, and the newest one."""
    config = read_config(context)
    state = current(config.storage, config.server.data_dir)
    if state.version == 0:
        click.echo(f"{state.path}: no database yet; the newest schema is {state.newest}")
    else:
        click.echo(f"{state.path}: schema {state.version}; the newest is {state.newest}")


@db.command("upgrade")
@click.pass_context
def db_upgrade(context: click.Context) -> None:
    """
    Bring the schema up to date.

    A copy of the file is made before. The server must not run; it does the same at start.
    """
    config = read_config(context)
    refuse_foreign(config.server.data_dir)
    try:
        claim = control.claim(config.server.data_dir)
    except control.DataDirInUse as error:
        raise CommandError(f"{error}; stop it first") from None
    try:
        done = upgrade(config.storage, config.server.data_dir)
    finally:
        claim.release()
    if done.before == done.after:
        click.echo(f"{done.path}: schema {done.after}, nothing to do")
    elif done.before == 0:
        click.echo(f"{done.path}: created with schema {done.after}")
    else:
        click.echo(f"{done.path}: schema {done.before} is now {done.after}; as it was: {done.backup}")


@main.command()
@click.option("--once", is_flag=True, help="End after the first notification, or after 30 s without one.")
def demo(once: bool) -> None:
    """Run the whole system on this machine and send a push through it."""
    from xmpppush.demo import run  # slixmpp and asyncio, for this one only

    raise SystemExit(run(once=once))


main.add_command(emulate)


if __name__ == "__main__":
    main(prog_name="xmpppush")
