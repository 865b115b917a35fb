"""Health check for Docker Compose and load balancers."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The response of the health check."""

    status: Literal["ok"] = "ok"


@router.get("/health")
async def read_health() -> Health:
    """Respond with 200 while the process serves requests."""
    return Health()
