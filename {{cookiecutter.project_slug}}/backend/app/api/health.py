"""Health check, for Compose, load balancers and people."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The answer of a service that is alive."""

    status: Literal["ok"] = "ok"


@router.get("/health")
async def read_health() -> Health:
    """Answer 200 while the process serves requests."""
    return Health()
