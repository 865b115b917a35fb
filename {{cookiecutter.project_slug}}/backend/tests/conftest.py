from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.main import app
from app.settings import settings


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Yield a client of the application with an empty database."""
    monkeypatch.setattr(settings, "database_path", tmp_path / "app.db")
    with TestClient(app) as test_client:
        yield test_client
