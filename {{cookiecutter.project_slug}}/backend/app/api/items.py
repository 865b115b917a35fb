"""Items, the example resource. Replace it with your own."""

import sqlite3
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, status
from pydantic import BaseModel, Field

from app.database import Connection

router = APIRouter(prefix="/items", tags=["items"])

MAX_ID = 2**63 - 1  # largest integer that SQLite stores
ItemId = Annotated[int, Path(ge=1, le=MAX_ID)]


class ItemCreate(BaseModel):
    """An item in a request."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    description: Annotated[str, Field(max_length=1000)] = ""


class Item(ItemCreate):
    """A stored item."""

    id: int
    created_at: datetime


@router.post("", status_code=status.HTTP_201_CREATED, responses={400: {}, 409: {}})
def create_item(item: ItemCreate, connection: Connection) -> Item:
    """Store an item; 409 if the name exists, 400 if the body cannot be decoded."""
    try:
        row = connection.execute(
            "INSERT INTO items (name, description) VALUES (?, ?) RETURNING *",
            (item.name, item.description),
        ).fetchone()
    except sqlite3.IntegrityError as error:
        raise HTTPException(
            status.HTTP_409_CONFLICT, f"An item named {item.name!r} already exists"
        ) from error
    return Item(**row)


@router.get("")
def list_items(
    connection: Connection,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    offset: Annotated[int, Query(ge=0, le=MAX_ID)] = 0,
) -> list[Item]:
    """List items in order of creation."""
    rows = connection.execute("SELECT * FROM items ORDER BY id LIMIT ? OFFSET ?", (limit, offset))
    return [Item(**row) for row in rows]


@router.get("/{item_id}", responses={404: {}})
def read_item(item_id: ItemId, connection: Connection) -> Item:
    """Return one item; 404 if it does not exist."""
    row = connection.execute("SELECT * FROM items WHERE id = ?", (item_id,)).fetchone()
    if row is None:
        raise not_found(item_id)
    return Item(**row)


@router.delete("/{item_id}", status_code=status.HTTP_204_NO_CONTENT, responses={404: {}})
def delete_item(item_id: ItemId, connection: Connection) -> None:
    """Delete one item; 404 if it does not exist."""
    if connection.execute("DELETE FROM items WHERE id = ?", (item_id,)).rowcount == 0:
        raise not_found(item_id)


def not_found(item_id: int) -> HTTPException:
    """Return the 404 error for an unknown id."""
    return HTTPException(status.HTTP_404_NOT_FOUND, f"No item has the id {item_id}")
