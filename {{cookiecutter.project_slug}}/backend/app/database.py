"""The SQLite database: tables, and one connection per request."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

from fastapi import Depends

from app.settings import settings

_TABLES = """
CREATE TABLE IF NOT EXISTS items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
)
"""


def create_tables(path: Path) -> None:
    """Create the database file and its tables if they do not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        # Readers do not wait for a writer: https://sqlite.org/wal.html
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(_TABLES)


def open_connection() -> Iterator[sqlite3.Connection]:
    """Yield a connection; commit if the request succeeds, roll back if it raises."""
    # FastAPI may run the dependency and the endpoint in different threads, one at a time.
    connection = sqlite3.connect(settings.database_path, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    with closing(connection), connection:
        yield connection


# scope="function": commit before the response is sent, so that a confirmed change is stored.
Connection = Annotated[sqlite3.Connection, Depends(open_connection, scope="function")]
