"""Wire shapes of sessions, members and links. Times are ms since 1970."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from atelier.auth import DisplayName, Role, User

SessionName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=120, pattern=r"^[^\x00-\x1f\x7f]+$"),
]
GrantedRole = Literal["view", "comment", "run", "edit"]


class NewSession(BaseModel):
    name: SessionName = "Untitled session"
    template: str = Field(default="blank", max_length=40)


class SessionChange(BaseModel):
    name: SessionName | None = None
    archived: bool | None = None
    entry: str | None = Field(
        default=None, max_length=1024, description="the path that Run takes when no file is open"
    )


class Egress(BaseModel):
    """Whether the session's programs reach the internet."""

    on: bool
    allowed: bool = Field(description="whether whoever runs the server lets owners decide it")
    by: str | None = Field(default=None, description="who switched it on")
    at: int | None = None


class EgressChange(BaseModel):
    on: bool


class Session(BaseModel):
    id: str
    name: str
    role: Role
    entry: str | None
    created_at: int
    updated_at: int
    archived: bool
    members: int
    url: str
    egress: Egress


class SessionPage(BaseModel):
    items: list[Session]
    next: str | None = Field(description="give it as `cursor` for the next page")


class Member(BaseModel):
    user_id: str
    display_name: str
    kind: Literal["guest", "account"]
    role: Role
    link_id: str | None
    joined_at: int


class Members(BaseModel):
    items: list[Member]


class RoleChange(BaseModel):
    role: Role


class NewLink(BaseModel):
    role: GrantedRole = "edit"
    expires_in: int | None = Field(default=None, ge=1, le=366 * 24 * 3600, description="seconds; null: never")
    max_uses: int | None = Field(default=None, ge=1, le=100_000, description="null: any number")


class Link(BaseModel):
    id: str
    role: GrantedRole
    created_at: int
    expires_at: int | None
    max_uses: int | None
    uses: int


class MadeLink(Link):
    """The only time that the token is shown: it is kept as a hash."""

    token: str
    url: str


class Links(BaseModel):
    items: list[Link]


class LinkPreview(BaseModel):
    session_id: str
    session_name: str
    role: GrantedRole
    invited_by: str | None
    expires_at: int | None


class Join(BaseModel):
    display_name: DisplayName | None = Field(default=None, description="for somebody who has no login yet")


class Joined(BaseModel):
    """The tokens come only when joining made a guest."""

    session: Session
    role: Role
    user: User
    access_token: str | None = None
    expires_in: int | None = None
    refresh_token: str | None = None


class Template(BaseModel):
    name: str
    title: str
    description: str


class Templates(BaseModel):
    items: list[Template]
