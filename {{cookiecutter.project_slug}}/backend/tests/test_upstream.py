from collections.abc import Callable

import httpx2
import pytest
from fastapi.testclient import TestClient

from app.api.upstream import get_client
from app.main import app
from app.settings import settings

ITEMS = f"{settings.api_prefix}/items"
UPSTREAM = f"{settings.api_prefix}/upstream/items"

Handler = Callable[[httpx2.Request], httpx2.Response]


@pytest.fixture
def use_upstream(monkeypatch: pytest.MonkeyPatch) -> Callable[[httpx2.AsyncBaseTransport], None]:
    """Return a function that replaces the transport of the upstream client."""

    def use(transport: httpx2.AsyncBaseTransport) -> None:
        base_url = f"http://upstream{settings.api_prefix}"
        client = httpx2.AsyncClient(transport=transport, base_url=base_url)
        monkeypatch.setitem(app.dependency_overrides, get_client, lambda: client)

    return use


def test_read_upstream_item_returns_the_item_or_404(
    client: TestClient, use_upstream: Callable[[httpx2.AsyncBaseTransport], None]
) -> None:
    use_upstream(httpx2.ASGITransport(app))
    item = client.post(ITEMS, json={"name": "Tea"}).json()
    assert client.get(f"{UPSTREAM}/{item['id']}").json() == item
    assert client.get(f"{UPSTREAM}/{item['id'] + 1}").status_code == 404


def refuse_connection(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("refused", request=request)


def time_out(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ReadTimeout("too long", request=request)


@pytest.mark.parametrize(
    ("handler", "status"),
    [
        (refuse_connection, 502),
        (time_out, 504),
        (lambda _: httpx2.Response(500), 502),
        (lambda _: httpx2.Response(200, json={"no": "item"}), 502),
        (lambda _: httpx2.Response(302, headers={"location": "/"}), 502),
    ],
    ids=["connection refused", "timeout", "server error", "invalid item", "redirect"],
)
def test_read_upstream_item_returns_502_or_504_if_upstream_fails(
    client: TestClient,
    use_upstream: Callable[[httpx2.AsyncBaseTransport], None],
    handler: Handler,
    status: int,
) -> None:
    use_upstream(httpx2.MockTransport(handler))
    assert client.get(f"{UPSTREAM}/1").status_code == status


def test_read_upstream_item_returns_502_if_no_server_is_listening(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "upstream_url", "http://127.0.0.1:9")
    with TestClient(app) as restarted:
        assert restarted.get(f"{UPSTREAM}/1").status_code == 502
