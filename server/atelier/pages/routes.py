"""All pages; each file below serves one part of them."""

from __future__ import annotations

from fastapi import APIRouter

from atelier.pages import accounts, admins, imports, joining, landing, static

router = APIRouter(include_in_schema=False)
for part in (landing, imports, joining, accounts, admins, static):
    router.include_router(part.router)
