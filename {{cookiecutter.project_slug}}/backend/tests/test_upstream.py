from collections.abc import Callable

import httpx2
import pytest
from fastapi.testclient import TestClient

from app.api.upstream import get_client
from app.main import app
from app.settings import settings

ITEMS = f"{settings.api_prefix}/items"
UPSTREAM = f"{settings.api_prefix}/upstream/items"

Answer = Callable[[httpx2.Request], httpx2.Response]


@pytest.fixture
def use_upstream(monkeypatch: pytest.MonkeyPatch) -> Callable[[httpx2.AsyncBaseTransport], None]:
    """Return a function that sets the transport of the service's client."""

    def use(transport: httpx2.AsyncBaseTransport) -> None:
        base_url = f"http://upstream{settings.api_prefix}"
        client = httpx2.AsyncClient(transport=transport, base_url=base_url)
        monkeypatch.setitem(app.dependency_overrides, get_client, lambda: client)

    return use


def test_an_item_comes_from_upstream(
    client: TestClient, use_upstream: Callable[[httpx2.AsyncBaseTransport], None]
) -> None:
    use_upstream(httpx2.ASGITransport(app))
    item = client.post(ITEMS, json={"name": "Tea"}).json()
    assert client.get(f"{UPSTREAM}/{item['id']}").json() == item
    assert client.get(f"{UPSTREAM}/{item['id'] + 1}").status_code == 404


def refuse(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("refused", request=request)


def hang(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ReadTimeout("too long", request=request)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (refuse, 502),
        (hang, 504),
        (lambda _: httpx2.Response(500), 502),
        (lambda _: httpx2.Response(200, json={"no": "item"}), 502),
        (lambda _: httpx2.Response(302, headers={"location": "/"}), 502),
    ],
    ids=["refuses", "hangs", "fails", "answers something else", "redirects"],
)
def test_a_failing_upstream_is_a_bad_gateway(
    client: TestClient,
    use_upstream: Callable[[httpx2.AsyncBaseTransport], None],
    answer: Answer,
    status: int,
) -> None:
    use_upstream(httpx2.MockTransport(answer))
    assert client.get(f"{UPSTREAM}/1").status_code == status


def test_the_real_client_answers_502_when_nothing_listens(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "upstream_url", "http://127.0.0.1:9")
    with TestClient(app) as restarted:
        assert restarted.get(f"{UPSTREAM}/1").status_code == 502
