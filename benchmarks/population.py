"""A store with very many accounts, each with a node and a registration, made in seconds."""

import os
import sqlite3
import time
from pathlib import Path

from benchmarks.client import DOMAIN, PASSWORD
from xmpppush.config.sections import StorageSection
from xmpppush.model import Account
from xmpppush.server.sasl import derive_keys
from xmpppush.storage import open_inline
from xmpppush.testing.builders import a_node, a_registration

# What stands for the number in the rows of the one account that is written by the stores themselves.
NUMBER = "#"
TABLES = ("accounts", "account_keys", "nodes", "node_affiliations", "registrations")


def populate(data_dir: Path, count: int) -> None:
    """
    Add ``user0`` to ``user{count - 1}``, as if each had logged in, created its node and enabled push.

    The stores write one account. Its rows are then multiplied by SQL, whatever columns they have, so only
    the password hash, which is the same for all, is not as in life.
    """
    path = data_dir / "xmpppush.db"
    _add_template(data_dir)
    database = sqlite3.connect(path)
    try:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA cache_size = -500000")
        with database:
            for table in TABLES:
                _multiply(database, table, count)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        database.close()
    # What was written without syncing the server's first commit shall not have to wait for.
    descriptor = os.open(path, os.O_RDWR)
    os.fsync(descriptor)
    os.close(descriptor)


def _add_template(data_dir: Path) -> None:
    account, now = f"user{NUMBER}@{DOMAIN}", time.time()
    storage = open_inline(StorageSection(url="sqlite:///xmpppush.db"), data_dir)
    try:
        storage.accounts.add([Account(account, derive_keys(PASSWORD), now)])
        affiliations = {account: "owner", DOMAIN: "publish-only"}
        storage.nodes.create(
            a_node(name=f"node-{NUMBER}", owner=account, affiliations=affiliations, created=now), 10
        )
        options = {
            "service": "fcm",
            "device_id": f"token-{NUMBER}",
            "mode": "prod",
            "click_action": "open.chat",
        }
        registration = a_registration(
            account=account, node=f"node-{NUMBER}", options=options, resource="bench", created=now
        )
        storage.registrations.put(registration, 20)
    finally:
        storage.close()


def _multiply(database: sqlite3.Connection, table: str, count: int) -> None:
    """Each row with the placeholder becomes ``count`` rows, in the order of the primary key."""
    info = database.execute(f"PRAGMA table_info({table})").fetchall()
    columns = [name for _, name, *_ in info]
    values = [f"replace({name}, '{NUMBER}', n)" if kind == "TEXT" else name for _, name, kind, *_ in info]
    key = [str(position + 1) for position, row in enumerate(info) if row[5]]
    has_number = " OR ".join(f"instr({name}, '{NUMBER}')" for _, name, kind, *_ in info if kind == "TEXT")
    database.execute(f"CREATE TEMP TABLE template AS SELECT * FROM {table} WHERE {has_number}")
    database.execute(f"DELETE FROM {table} WHERE {has_number}")
    database.execute(
        "WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?)"
        f" INSERT INTO {table} ({', '.join(columns)})"
        f" SELECT {', '.join(values)} FROM numbers, template ORDER BY {', '.join(key)}",
        (count,),
    )
    database.execute("DROP TABLE template")
