"""The in-memory twin: the same SQL, forgotten in the end."""

from xmpppush.storage import Storage
from xmpppush.storage.engine import InlineEngine, connect
from xmpppush.storage.migrate import create_schema


def memory_storage() -> Storage:
    """An empty storage for tests on a `Clock`: open from the start, every Deferred has fired already."""
    connection = connect(":memory:")
    create_schema(connection)
    return Storage(InlineEngine(connection))
