"""The xmpppush command, on a real database and towards a real control socket."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytest_twisted
from click.testing import CliRunner
from twisted.internet import reactor
from twisted.internet.defer import succeed
from twisted.internet.threads import deferToThread

from xmpppush import commands, control
from xmpppush.commands import (
    CommandError,
    ask,
    derive_all,
    local_account,
    main,
    printable,
    read_batch,
    shortened,
)
from xmpppush.config.reader import load
from xmpppush.control import ControlServer, claim
from xmpppush.model import Account, TraceLimits, TraceNote
from xmpppush.storage import open_inline
from xmpppush.storage.memory import memory_storage
from xmpppush.testing.builders import a_registration
from xmpppush.trace import Trace

TOKEN = "fcm-token-0123456789abcdef"


@pytest.fixture
def ini(tmp_path: Path) -> Path:
    path = tmp_path / "server.ini"
    path.write_text("[server]\ndomains = localhost, example.org\ndata_dir = data\n")
    return path


@pytest.fixture
def config(ini):
    return load(ini, {})


@pytest.fixture
def run(ini):
    """Run a command line; returns exit status, standard output, standard error."""

    def run(*arguments: str, input: str | bytes = ""):
        result = CliRunner().invoke(main, ["-c", str(ini), *arguments], input=input)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return run


def fired(deferred):
    results = []
    deferred.addCallback(results.append)
    return results[0]


def accounts_of(config):
    storage = open_inline(config.storage, config.server.data_dir)
    try:
        return fired(storage.accounts.list())
    finally:
        storage.close()


def register(config, **changes):
    storage = open_inline(config.storage, config.server.data_dir)
    storage.registrations.put(
        a_registration(options={"service": "fcm", "device_id": TOKEN, "secret": "s3cret"}, **changes), 20
    )
    storage.close()


# The configuration.


def test_check_config_prints_what_the_server_is(run):
    """A good configuration is described, with status 0."""
    status, output, _ = run("check-config")
    assert status == 0
    assert "example.org" in output


def test_check_config_names_every_problem(run, ini):
    """A bad one is a line for each problem and status 1."""
    ini.write_text("[server]\ndomain = localhost\ndata_dirr = x\n")
    status, output, errors = run("check-config")
    assert status == 1
    assert output == ""
    assert "domain:" in errors
    assert "data_dirr:" in errors
    assert "Traceback" not in errors


def test_check_config_reads_credentials(run, ini):
    """What a start would find wrong with them, a line for each."""
    (ini.parent / "account.json").write_text("{}")
    (ini.parent / "keys").write_text("one s3cret\n")
    pools = "[mongoosepush:fcm:a]\nappfile = account.json\n"
    ini.write_text(f"[mongoosepush]\n{pools}")
    status, output, errors = run("check-config")
    assert (status, output) == (1, "")
    assert errors.startswith("[mongoosepush:fcm:a] appfile: ")
    assert len(errors.splitlines()) == 1
    ini.write_text("[mongoosepush]\napi_keys = keys\n")
    status, _, errors = run("check-config")
    assert status == 1
    assert "line 1: a key has 16 letters" in errors
    assert "s3cret" not in errors


def test_a_missing_configuration_is_one_line(run, ini):
    """A command without its configuration says which file it looked for."""
    ini.unlink()
    status, _, errors = run("user", "list")
    assert status == 1
    assert len(errors.splitlines()) == 1
    assert "server.ini" in errors


# Accounts.


def test_an_account_is_added_listed_and_removed(run):
    """The life of an account without a server running."""
    assert run("user", "add", "alice@localhost", "--password", "secret")[:2] == (0, "alice@localhost added\n")
    assert run("user", "add", "Bob@Example.org", "--password", "secret")[:2] == (0, "bob@example.org added\n")
    assert run("user", "list")[:2] == (0, "alice@localhost\nbob@example.org\n")
    assert run("user", "remove", "alice@localhost")[:2] == (0, "alice@localhost removed\n")
    assert run("user", "list")[:2] == (0, "bob@example.org\n")


def test_a_password_is_kept_as_keys_only(run, config):
    """The database has keys of both mechanisms and nothing of the password."""
    run("user", "add", "alice@localhost", "--password", "correct horse battery")
    storage = open_inline(config.storage, config.server.data_dir)
    account = fired(storage.accounts.get("alice@localhost"))
    storage.close()
    assert sorted(account.keys) == ["SCRAM-SHA-1", "SCRAM-SHA-256"]
    for file in config.server.data_dir.iterdir():
        assert b"correct horse" not in file.read_bytes()


def test_the_password_is_read_from_standard_input(run):
    """In a script the password comes through a pipe, not through the command line."""
    assert run("user", "add", "alice@localhost", input="secret\n")[0] == 0


@pytest.mark.parametrize("arguments", [("--password", ""), ()])
def test_an_empty_password_is_refused(run, config, arguments):
    """Neither an empty option nor an empty line is a password."""
    status, _, errors = run("user", "add", "alice@localhost", *arguments)
    assert (status, errors) == (1, "an empty password is no password\n")
    assert accounts_of(config) == ()


def test_a_terminal_is_asked_twice(run, monkeypatch):
    """On a terminal the password is prompted for, and confirmed."""
    asked = []

    def prompt(text, **options):
        asked.append((text, options["hide_input"], options["confirmation_prompt"]))
        return "secret"

    monkeypatch.setattr(commands.click, "prompt", prompt)
    monkeypatch.setattr(commands, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    assert commands.ask_password() == "secret"
    assert asked == [("Password", True, True)]


def test_a_password_with_forbidden_characters_is_not_repeated(run):
    """What SASLprep prohibits is refused without quoting it."""
    status, _, errors = run("user", "add", "alice@localhost", "--password", "sec\x07ret")
    assert status == 1
    assert len(errors.splitlines()) == 1
    assert "RFC 4013" in errors
    assert "ret" not in errors.replace("characters", "")


@pytest.mark.parametrize(
    ("jid", "complaint"),
    [
        ("alice", "not an account"),
        ("alice@localhost/phone", "not an account"),
        ("@localhost", "not a JID"),
        ("alice@elsewhere.example", "elsewhere.example is not served here"),
        ("al ice@localhost", "not a JID"),
        ("a\x1b[31m@localhost", "not a JID"),
    ],
)
def test_only_accounts_of_served_domains_are_added(run, config, jid, complaint):
    """Anything else than a local account is one line, without steering the terminal."""
    status, _, errors = run("user", "add", jid, "--password", "secret")
    assert status == 1
    assert complaint in errors
    assert len(errors.splitlines()) == 1
    assert "\x1b" not in errors


def test_an_account_is_added_once(run):
    """The second time it is there already."""
    run("user", "add", "alice@localhost", "--password", "secret")
    status, _, errors = run("user", "add", "alice@localhost", "--password", "secret")
    assert status == 1
    assert "alice@localhost" in errors
    assert len(errors.splitlines()) == 1


def test_a_new_password_replaces_the_keys(run, config):
    """After passwd the keys are others."""
    run("user", "add", "alice@localhost", "--password", "secret")
    assert run("user", "passwd", "alice@localhost", "--password", "other")[0] == 0
    storage = open_inline(config.storage, config.server.data_dir)
    account = fired(storage.accounts.get("alice@localhost"))
    storage.close()
    from xmpppush.server.sasl import derive_keys

    assert account.keys["SCRAM-SHA-1"].salt != derive_keys("other")["SCRAM-SHA-1"].salt


@pytest.mark.parametrize("command", [("passwd", "--password", "x"), ("remove",)])
def test_who_is_not_there_is_named(run, command):
    """A change to an account that does not exist is status 1."""
    name, *options = command
    status, _, errors = run("user", name, "nobody@localhost", *options)
    assert (status, errors) == (1, "nobody@localhost: there is no such account\n")


# Many accounts.


def test_a_batch_is_added(run, config, tmp_path):
    """Each line is an account; empty lines and Windows line ends do not matter."""
    batch = tmp_path / "batch"
    batch.write_bytes("\ufeffalice@localhost\tsecret\r\n\nbob@localhost\twith space".encode())
    assert run("user", "add", "--batch", str(batch))[:2] == (0, "2 accounts added\n")
    assert accounts_of(config) == ("alice@localhost", "bob@localhost")


def test_a_batch_from_standard_input(run, config):
    """'-' is standard input."""
    assert run("user", "add", "--batch", "-", input="alice@localhost\tsecret\n")[:2] == (
        0,
        "1 account added\n",
    )


def test_a_bad_line_is_named_and_nothing_is_added(run, config):
    """One bad line, and no account of the file is there."""
    run("user", "add", "old@localhost", "--password", "x")
    batch = (
        b"alice@localhost\tsecret\n"
        b"bob@localhost\n"
        b"carol@localhost\t\n"
        b"dave@elsewhere.example\tsecret\n"
        b"alice@LOCALHOST\tsecret\n"
        b"old@localhost\tsecret\n"
        b"\xff@localhost\tsecret\n"
        b"erin@localhost\tsec\x07ret\n"
    )
    status, output, errors = run("user", "add", "--batch", "-", input=batch)
    assert (status, output) == (1, "")
    assert [line.partition(":")[0] for line in errors.splitlines()] == [
        *(f"line {number}" for number in (2, 3, 4, 5, 6, 7)),
        "no account was added",
    ]
    assert accounts_of(config) == ("old@localhost",)


def test_a_bad_password_in_a_batch_is_named_by_its_line(run, config):
    """A password that is none is found before anything is added, and not repeated."""
    batch = b"alice@localhost\tsecret\nerin@localhost\tsec\x07ret\n"
    status, _, errors = run("user", "add", "--batch", "-", input=batch)
    assert status == 1
    assert errors.startswith("line 2: erin@localhost: this password")
    assert accounts_of(config) == ()


def test_a_file_of_something_else_does_not_flood_the_terminal(run):
    """Of many problems the first ones are shown, and how many more there are."""
    status, _, errors = run("user", "add", "--batch", "-", input="x\n" * 1000)
    assert status == 1
    assert len(errors.splitlines()) == commands.MAX_PROBLEMS + 2
    assert "... and 980 more" in errors


@pytest.mark.parametrize(
    "arguments", [(), ("alice@localhost", "--batch", "-"), ("--batch", "-", "--password", "x")]
)
def test_a_wrong_command_line_is_status_2(run, arguments):
    """An account or a batch, not both and not none."""
    assert run("user", "add", *arguments)[0] == 2


def test_lines_do_not_show_their_password():
    """A line that ends up in a traceback keeps its secret."""
    [line], _ = read_batch(b"a@b\tsecret", lambda text: text)
    assert "secret" not in repr(line)


def test_keys_come_in_the_order_of_the_lines():
    """Threads may finish in any order; accounts do not."""
    lines, _ = read_batch(b"".join(b"u%d@x\tp\n" % number for number in range(40)), lambda text: text)
    assert [account.jid for account in derive_all(lines, 5.0)] == [f"u{number}@x" for number in range(40)]


# Registrations.


def test_registrations_are_listed_with_shortened_tokens(run, config):
    """A token is shown in full only when asked for; the secret never."""
    register(config)
    status, output, _ = run("push", "list")
    assert status == 0
    assert (
        output == "alice@localhost\tphone\tpubsub.localhost\tnode-1\tfcm\tfcm-to...\t1970-01-01T00:16:40Z\t0"
        "\tactive\n"
    )
    assert TOKEN in run("push", "list", "alice@localhost", "--show-tokens")[1]
    assert run("push", "list", "bob@localhost")[:2] == (0, "")


def test_a_node_that_may_be_a_token_is_listed_shortened(run, config):
    """fpush's way: the node is the device token."""
    token = "0123456789abcdef" * 4
    register(config, node=token)
    assert token not in run("push", "list")[1]
    assert token in run("push", "list", "--show-tokens")[1]


def test_a_suspended_registration_says_until_when_and_why(run, config):
    """An operator sees it without a look into the log."""
    register(config, errors=10, state="suspended", reason="the sender may not", next_try=90_000.0)
    output = run("push", "list")[1]
    assert output.endswith("\t10\tsuspended until 1970-01-02T01:00:00Z: the sender may not\n")


def test_names_of_strangers_do_not_steer_the_terminal(run, config):
    """The node's name is the client's choice."""
    register(config, node="\x9b31mred\tx\u202e")
    assert "\\x9b31mred\\tx\\u202e" in run("push", "list")[1]


def test_a_table_for_people(run, config, monkeypatch):
    """On a terminal there are headings, and what looks like markup is text."""
    register(config, node="[bold]n")
    monkeypatch.setattr(commands, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True)))
    output = run("push", "list")[1]
    assert "account" in output
    assert "[bold]n" in output.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "count", "left"),
    [
        ((), "3 registrations", 0),
        (("pubsub.localhost",), "2 registrations", 1),
        (("pubsub.localhost", "n1"), "1 registration", 2),
        (("pubsub.localhost", "missing"), "0 registrations", 3),
        (("Elsewhere.example",), "1 registration", 2),
    ],
)
def test_registrations_are_disabled(run, config, arguments, count, left):
    """All of an account, those of one app server, or one."""
    register(config, node="n1")
    register(config, node="n2")
    register(config, node="n1", pubsub="elsewhere.example")
    assert run("push", "disable", "alice@localhost", *arguments)[:2] == (0, f"{count} disabled\n")
    assert len(run("push", "list")[1].splitlines()) == left


@pytest.mark.parametrize(
    "command", [("push", "disable"), ("push", "test"), ("push", "list"), ("user", "remove")]
)
def test_a_domain_is_no_account(run, command):
    """Not 0 registrations of nobody: 'alice' for 'alice@localhost' is a mistake."""
    status, _, errors = run(*command, "alice")
    assert status == 1
    assert errors == "alice: not an account, such as alice@localhost\n"


def test_a_test_notification_needs_the_server(run):
    """What only a server can do says so."""
    status, _, errors = run("push", "test", "alice@localhost")
    assert status == 1
    assert errors.startswith("no server is running with ")
    assert errors.endswith("; start it first\n")


# The trace.


def noted(config, *notes):
    storage = open_inline(config.storage, config.server.data_dir)
    storage.traces.add(notes, TraceLimits(0.0, 1000))
    storage.close()


def a_story(trace="t1", at=1000.0, node="n1"):
    return [
        TraceNote(trace, at, "alice@localhost", node, "accepted", "no-session", {"sender": "bob@localhost"}),
        TraceNote(trace, at + 1, "alice@localhost", node, "delivered", "HTTP 200", {"attempt": 1}),
    ]


def test_pushes_are_explained(run, config):
    """Of an account, the newest at the end, or one by its id."""
    register(config)
    noted(config, *a_story(), *a_story("t2", at=2000.0))
    status, output, _ = run("push", "trace", "Alice@Localhost")
    assert status == 0
    assert [line.rpartition("  ")[2] for line in output.splitlines() if line[0] != " "] == ["[t1]", "[t2]"]
    assert "delivered to the push service, try 1: HTTP 200" in output
    assert run("push", "trace", "alice@localhost", "--last", "1")[1].startswith(
        "1970-01-01 00:33:20.000 UTC "
    )
    assert run("push", "trace", "--id", "t1")[1].startswith("1970-01-01 00:16:40.000 UTC  message from bob@")


def add_account(config, jid="alice@localhost"):
    storage = open_inline(config.storage, config.server.data_dir)
    storage.accounts.add([Account(jid, {})])
    storage.close()


def test_nothing_to_explain_is_explained(run, config):
    """No registration, or no message."""
    add_account(config)
    assert run("push", "trace", "alice@localhost")[:2] == (
        0,
        "alice@localhost has no push registration: its messages push nothing until its client enables push\n",
    )
    register(config)
    assert run("push", "trace", "alice@localhost")[:2] == (
        0,
        "nothing is noted about alice@localhost: no message met its 1 registration\n",
    )
    assert run("push", "trace", "--id", "\x1b[31m")[2] == (
        "\\x1b[31m: no such id, or it is older than [trace] keep\n"
    )


@pytest.mark.parametrize(
    ("jid", "error"),
    [
        (
            "alise@localhost",
            "alise@localhost: there is no such account; 'xmpppush user list' shows those there are",
        ),
        (
            "alice@localhots",
            "alice@localhots: localhots is not served here; [server] domains has: localhost, example.org",
        ),
        ("alice", "alice: not an account, such as alice@localhost"),
        ("alice@localhost/phone", "alice@localhost/phone: a JID without resource, please"),
    ],
)
def test_a_mistyped_jid_is_told_from_one_without_push(run, jid, error):
    """Else one would look for a fault of the client's."""
    assert run("push", "trace", jid) == (1, "", f"{error}\n")


def test_an_account_of_a_domain_of_old_keeps_its_stories(run, config):
    """What is noted is told, whatever is served now."""
    noted(config, *(note._replace(account="alice@old.example") for note in a_story()))
    assert "delivered" in run("push", "trace", "alice@old.example")[1]


def test_pushes_of_foreign_servers_are_explained_under_the_pubsub_host(run, config, ini):
    """As the manual says."""
    assert run("push", "trace", "pubsub.localhost")[0] == 1
    ini.write_text(f"{ini.read_text()}[mod_pubsub]\n")
    assert run("push", "trace", "pubsub.localhost")[:2] == (0, "nothing is noted about pubsub.localhost\n")
    noted(config, *(note._replace(account="pubsub.localhost") for note in a_story()))
    assert "delivered" in run("push", "trace", "pubsub.localhost")[1]


def test_an_id_may_have_its_brackets(run, config):
    """As it was copied."""
    noted(config, *a_story())
    assert run("push", "trace", "--id", "[t1]") == run("push", "trace", "--id", "t1")


def test_stories_for_programs(run, config):
    """A line of JSON each, with the same words; nothing else is on standard output."""
    add_account(config)
    register(config)
    noted(config, *a_story(), *a_story("t2", at=2000.0))
    status, output, _ = run("push", "trace", "alice@localhost", "--json")
    stories = [json.loads(line) for line in output.splitlines()]
    assert (status, [story["id"] for story in stories]) == (0, ["t1", "t2"])
    assert stories[0] == {
        "id": "t1",
        "account": "alice@localhost",
        "about": "message from bob@localhost",
        "answer": "pushed to 1 device",
        "alike": 0,
        "notes": [
            {
                "at": 1000.0,
                "stage": "mod_push",
                "node": "n1",
                "decision": "accepted",
                "reason": "no-session",
                "told": "accepted for a push: nobody of this account is connected",
                "fields": {"sender": "bob@localhost"},
            },
            {
                "at": 1001.0,
                "stage": "push service",
                "node": "n1",
                "decision": "delivered",
                "reason": "HTTP 200",
                "told": "delivered to the push service, try 1: HTTP 200",
                "fields": {"attempt": 1},
            },
        ],
    }
    assert run("push", "trace", "--id", "t3", "--json")[:2] == (1, "")


def test_what_waits_says_for_what(run, config):
    """Without a server nothing goes out."""
    noted(config, a_story()[0])
    output = run("push", "trace", "--id", "t1")[1]
    assert output.splitlines()[1] == "  on its way to 1 device"
    assert output.endswith("what is on its way waits: no server is running\n")


def test_a_trace_that_is_off_says_so(run, ini, config):
    """Else one would wait for notes."""
    ini.write_text(ini.read_text() + "[trace]\nmax_notes = 0\n")
    add_account(config)
    assert run("push", "trace", "alice@localhost")[2] == "[trace] max_notes is 0: nothing is noted any more\n"


@pytest.mark.parametrize("arguments", [(), ("alice@localhost", "--id", "t1"), ("a@b", "--last", "0")])
def test_a_trace_is_of_an_account_or_an_id(run, arguments):
    """One of both."""
    assert run("push", "trace", *arguments)[0] == 2


def test_names_in_a_trace_do_not_steer_the_terminal(run, config):
    """Nodes and stanza ids are the clients' choice."""
    noted(config, *a_story(node="\x9b31mred\n"))
    assert "node \\x9b31mred\\n: accepted" in run("push", "trace", "alice@localhost")[1]


def test_what_the_operator_disables_is_noted(run, config):
    """Without a server, too."""
    register(config)
    run("push", "disable", "alice@localhost")
    output = run("push", "trace", "alice@localhost")[1]
    assert "removed: the operator disabled it" in output
    assert output.splitlines()[-1].startswith(
        "alice@localhost has no push registration: its messages push nothing"
    )


# The database.


def test_the_schema_is_shown_and_upgraded(run):
    """Looking creates nothing; upgrading creates or upgrades."""
    assert "no database yet" in run("db", "current")[1]
    assert "created with schema" in run("db", "upgrade")[1]
    assert "nothing to do" in run("db", "upgrade")[1]
    assert "the newest is" in run("db", "current")[1]


def test_an_upgrade_keeps_away_from_a_running_server(run, config):
    """The database is not changed under a server."""
    held = claim(config.server.data_dir)
    status, _, errors = run("db", "upgrade")
    held.release()
    assert status == 1
    assert "another xmpppush is running" in errors


def test_a_file_that_is_no_database_is_one_line(run, config):
    """A broken database is named."""
    config.server.data_dir.mkdir()
    (config.server.data_dir / "xmpppush.db").write_bytes(b"nonsense" * 1000)
    status, _, errors = run("user", "list")
    assert status == 1
    assert "xmpppush.db" in errors
    assert len(errors.splitlines()) == 1


def test_files_of_another_user_are_left_alone(run, config, monkeypatch):
    """Root would make files that the server cannot open."""
    config.server.data_dir.mkdir()
    monkeypatch.setattr(commands.os, "geteuid", lambda: 123456)
    status, _, errors = run("user", "list")
    assert status == 1
    assert "belongs to" in errors
    assert list(config.server.data_dir.iterdir()) == []


# With a server.


class FakePush:
    async def test(self, account, body):
        devices = {"alice@localhost": [True], "carol@localhost": [True, False]}
        return [(f"node-{taken:d}: sent {body}", taken) for taken in devices.get(account, [])]


@pytest.fixture
def server(config):
    """A control server whose accounts are not those of the database."""
    closed, removals, forgotten = [], [], []
    accounts = SimpleNamespace(
        list=lambda: succeed(("served@localhost",)),
        remove=lambda jid: succeed(removals.append(jid) or True),
    )
    application = SimpleNamespace(
        storage=SimpleNamespace(accounts=accounts),
        push=FakePush(),
        sandbox=None,
        addresses={},
        close_sessions=lambda *arguments: closed.append(arguments),
        closed=closed,
        forget_account=forgotten.append,
        forgotten=forgotten,
        removals=removals,
    )
    held = claim(config.server.data_dir)
    service = ControlServer(application, held, reactor)
    service.startService()
    yield application
    pytest_twisted.blockon(service.stopService())
    held.release()


@pytest_twisted.ensureDeferred
async def test_a_running_server_is_asked(server, run):
    """With a server the command opens no database."""
    assert (await deferToThread(run, "user", "list"))[:2] == (0, "served@localhost\n")
    assert (await deferToThread(run, "user", "remove", "served@localhost"))[0] == 0
    assert server.closed == [("served@localhost", "not-authorized", "The account was removed.")]
    # The second time for what came in between.
    assert (server.forgotten, server.removals) == (["served@localhost"], ["served@localhost"] * 2)


@pytest_twisted.ensureDeferred
async def test_a_test_notification_goes_through_the_server(server, run):
    """The outcome for each device is printed; one that does not have it, or none at all, is status 1."""
    done = await deferToThread(run, "push", "test", "alice@localhost", "--body", "Hi")
    assert done[:2] == (0, "node-1: sent Hi\n")
    status, _, errors = await deferToThread(run, "push", "test", "bob@localhost")
    assert (status, errors) == (1, "bob@localhost: no device has enabled push\n")
    status, output, errors = await deferToThread(run, "push", "test", "carol@localhost", "--body", "Hi")
    assert (status, output) == (1, "node-1: sent Hi\nnode-0: sent Hi\n")
    assert errors == "carol@localhost: not taken by the push service for 1 of 2 devices\n"


@pytest_twisted.ensureDeferred
async def test_a_running_server_tells_what_it_has_just_noted(server, run, config):
    """Also what is not stored yet."""
    storage = memory_storage()
    server.storage, server.config = storage, config
    server.trace = Trace(storage.traces, reactor, 60.0, 1000)
    server.trace.note("t1", "alice@localhost", "n1", "filtered", "no-content", sender="bob@localhost")
    status, output, _ = await deferToThread(run, "push", "trace", "alice@localhost")
    assert status == 0
    assert "nothing was pushed: it has no text" in output


def test_a_server_that_just_starts_is_waited_for(config, monkeypatch):
    """Between the claim and the socket there is no second one working on the database."""
    times = iter([0.0, 1.0, 6.0])
    slept = []
    monkeypatch.setattr(commands, "time", SimpleNamespace(monotonic=lambda: next(times), sleep=slept.append))
    held = claim(config.server.data_dir)
    with pytest.raises(control.ControlError, match="starting or stopping"):
        ask(config, "accounts.list")
    held.release()
    assert slept == [0.1]
    assert not (config.server.data_dir / "xmpppush.db").exists()


# Small things.


@pytest.mark.parametrize(
    ("token", "shown"), [("", ""), ("ab", "..."), ("abcdefgh", "ab..."), ("a" * 100, "aaaaaa...")]
)
def test_tokens_are_shortened(token, shown):
    """Never more than a third of it."""
    assert shortened(token) == shown


def test_what_is_printable_stays():
    """Letters of all scripts are shown as they are."""
    assert printable("Zoë 猫 [x]") == "Zoë 猫 [x]"
    assert printable("a\nb\udc80") == "a\\nb\\udc80"


def test_accounts_are_prepared(config):
    """Case and Unicode forms do not make two accounts of one."""
    assert local_account(config, "ALICE@LocalHost") == "alice@localhost"
    with pytest.raises(CommandError):
        local_account(config, "localhost")


def test_the_command_loads_no_reactor():
    """The command works without one; loading it is time that an operator waits."""
    program = "import sys, xmpppush.commands; print('twisted.internet.reactor' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
