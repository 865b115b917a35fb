"""All API routes, without the prefix."""

from fastapi import APIRouter

from app.api import health, items, upstream

api_router = APIRouter()
api_router.include_router(health.router)
api_router.include_router(items.router)
api_router.include_router(upstream.router)
