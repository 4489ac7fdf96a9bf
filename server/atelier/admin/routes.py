"""HTTP to calls, for admins."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from atelier.admin import service
from atelier.auth import CallerDep, User
from atelier.deps import ServicesDep

router = APIRouter(prefix="/api/v1/admin", tags=["admin"])


class UserPage(BaseModel):
    items: list[User]
    next: str | None


class UserChange(BaseModel):
    is_admin: bool


class Switches(BaseModel):
    sign_up: bool


class PackageList(BaseModel):
    """Which packages programs may have installed."""

    listed: bool = Field(description="false: whatever the index has; the lists wait")
    python: list[str] = Field(default_factory=list, max_length=5000, description="`name`, or `name>=2,<3`")
    node: list[str] = Field(
        default_factory=list,
        max_length=5000,
        description="`name`, `name@^2.0.0`, or a whole scope, `@scope/*`",
    )


@router.get("/users", operation_id="list_users")
async def list_users(services: ServicesDep, caller: CallerDep, q: str = "", cursor: str = "") -> UserPage:
    """List accounts, or search everybody by name or address."""
    items, following = await service.list_users(services, caller, q, cursor)
    return UserPage(items=items, next=following)


@router.patch("/users/{user_id}", operation_id="change_user")
async def change_user(user_id: str, body: UserChange, services: ServicesDep, caller: CallerDep) -> User:
    """Promote or demote."""
    return await service.change_user(services, caller, user_id, is_admin=body.is_admin)


@router.delete("/users/{user_id}", status_code=204, operation_id="delete_user")
async def delete_user(user_id: str, services: ServicesDep, caller: CallerDep) -> None:
    """Delete a person and the sessions that they alone own."""
    await service.delete_user(services, caller, user_id)


@router.get("/switches", operation_id="get_switches")
async def get_switches(services: ServicesDep, caller: CallerDep) -> Switches:
    """Show the switches."""
    return Switches.model_validate(await service.switches(services, caller))


@router.put("/switches", operation_id="set_switches")
async def set_switches(body: Switches, services: ServicesDep, caller: CallerDep) -> Switches:
    """Set the switches."""
    return Switches.model_validate(await service.set_switches(services, caller, sign_up=body.sign_up))


@router.get("/packages", operation_id="get_packages")
async def get_packages(services: ServicesDep, caller: CallerDep) -> PackageList:
    """Show which packages may be installed."""
    return PackageList.model_validate(await service.packages(services, caller))


@router.put("/packages", operation_id="set_packages")
async def set_packages(body: PackageList, services: ServicesDep, caller: CallerDep) -> PackageList:
    """Say which packages may be installed; the next run that asks for one meets it."""
    kept = await service.set_packages(
        services, caller, listed=body.listed, python=body.python, node=body.node
    )
    return PackageList.model_validate(kept)
