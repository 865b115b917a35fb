"""Items of another instance of this service: an example of a call over HTTP."""

from typing import Annotated

import httpx2
from fastapi import APIRouter, Depends, HTTPException, Request, status
from pydantic import ValidationError

from app.api.items import Item, ItemId, not_found
from app.settings import settings

router = APIRouter(prefix="/upstream", tags=["upstream"])


def open_client() -> httpx2.AsyncClient:
    """Return a client for the instance at ``APP_UPSTREAM_URL``. The caller must close it."""
    return httpx2.AsyncClient(
        base_url=f"{settings.upstream_url}{settings.api_prefix}",
        timeout=settings.upstream_timeout,
    )


def get_client(request: Request) -> httpx2.AsyncClient:
    """Return the client that the application opened at start-up."""
    client: httpx2.AsyncClient = request.state.upstream
    return client


@router.get("/items/{item_id}", responses={404: {}, 502: {}, 504: {}})
async def read_upstream_item(
    item_id: ItemId, client: Annotated[httpx2.AsyncClient, Depends(get_client)]
) -> Item:
    """Return an item of the other instance; 502 if it fails, 504 if it times out."""
    try:
        response = await client.get(f"/items/{item_id}")
    except httpx2.TimeoutException as error:
        raise HTTPException(status.HTTP_504_GATEWAY_TIMEOUT, "Upstream timed out") from error
    except httpx2.HTTPError as error:
        raise HTTPException(status.HTTP_502_BAD_GATEWAY, "Upstream did not respond") from error
    if response.status_code == status.HTTP_404_NOT_FOUND:
        raise not_found(item_id)
    try:
        return Item.model_validate_json(response.raise_for_status().content)
    except (httpx2.HTTPStatusError, ValidationError) as error:
        raise HTTPException(status.HTTP_502_BAD_GATEWAY, "Upstream sent no valid item") from error
