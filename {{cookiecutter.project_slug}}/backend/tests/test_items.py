import pytest
from fastapi.testclient import TestClient

from app.api.items import MAX_ID
from app.settings import settings

ITEMS = f"{settings.api_prefix}/items"


def create(client: TestClient, name: str) -> int:
    response = client.post(ITEMS, json={"name": name})
    assert response.status_code == 201, response.text
    return int(response.json()["id"])


def test_create_item_returns_the_stored_item(client: TestClient) -> None:
    response = client.post(ITEMS, json={"name": "Tea", "description": "Green"})
    item = response.json()
    assert response.status_code == 201
    assert (item["name"], item["description"]) == ("Tea", "Green")
    assert client.get(f"{ITEMS}/{item['id']}").json() == item


def test_create_item_rejects_a_duplicate_name(client: TestClient) -> None:
    create(client, "Tea")
    response = client.post(ITEMS, json={"name": "Tea"})
    assert (response.status_code, response.json()) == (
        409,
        {"detail": "An item named 'Tea' already exists"},
    )
    assert len(client.get(ITEMS).json()) == 1


@pytest.mark.parametrize(
    "body",
    [{}, {"name": ""}, {"name": "a" * 101}, {"name": "a", "description": "a" * 1001}, {"name": 1}],
    ids=["no name", "empty name", "long name", "long description", "name is a number"],
)
def test_create_item_rejects_an_invalid_item(client: TestClient, body: dict[str, object]) -> None:
    assert client.post(ITEMS, json=body).status_code == 422
    assert client.get(ITEMS).json() == []


@pytest.mark.parametrize(
    "body", ['{"name": NaN}', '{"name": -1e999}', r'{"name": "\ud800"}', '{"other": NaN}', "[NaN]"]
)
def test_create_item_rejects_values_that_json_cannot_encode(client: TestClient, body: str) -> None:
    headers = {"content-type": "application/json"}
    response = client.post(ITEMS, content=body, headers=headers)
    assert response.status_code == 422
    assert response.json()["detail"][0].keys() == {"type", "loc", "msg"}


def test_list_items_returns_pages_in_order_of_creation(client: TestClient) -> None:
    ids = [create(client, name) for name in "cab"]
    assert [item["id"] for item in client.get(ITEMS).json()] == ids
    page = client.get(ITEMS, params={"limit": 1, "offset": 1}).json()
    assert [item["name"] for item in page] == ["a"]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "offset=-1", "limit=x"])
def test_list_items_rejects_an_invalid_page(client: TestClient, query: str) -> None:
    assert client.get(f"{ITEMS}?{query}").status_code == 422


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("item_id", [1, MAX_ID])
def test_unknown_item_returns_404(client: TestClient, method: str, item_id: int) -> None:
    response = client.request(method, f"{ITEMS}/{item_id}")
    assert response.status_code == 404
    assert response.json() == {"detail": f"No item has the id {item_id}"}


@pytest.mark.parametrize("item_id", ["0", "-1", "x", str(MAX_ID + 1)])
def test_invalid_item_id_is_rejected(client: TestClient, item_id: str) -> None:
    assert client.get(f"{ITEMS}/{item_id}").status_code == 422


def test_delete_item_removes_the_item_and_frees_its_name(client: TestClient) -> None:
    item_id = create(client, "Tea")
    response = client.delete(f"{ITEMS}/{item_id}")
    assert (response.status_code, response.content) == (204, b"")
    assert client.get(f"{ITEMS}/{item_id}").status_code == 404
    assert create(client, "Tea") != item_id


def test_create_item_rejects_a_body_that_is_not_utf8(client: TestClient) -> None:
    response = client.post(ITEMS, content=b"\xff", headers={"content-type": "application/json"})
    assert response.status_code == 400
