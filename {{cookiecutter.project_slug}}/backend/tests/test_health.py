from fastapi.testclient import TestClient

from app.settings import settings


def test_health_returns_ok(client: TestClient) -> None:
    response = client.get(f"{settings.api_prefix}/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_openapi_paths_start_with_the_api_prefix(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert settings.health_path in paths
    assert all(path.startswith(settings.api_prefix) for path in paths)
