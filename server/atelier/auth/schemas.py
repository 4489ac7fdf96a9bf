"""Wire shapes of people, tokens and tickets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, EmailStr, Field, StringConstraints

DisplayName = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40, pattern=r"^[^\x00-\x1f\x7f]+$")
]
Password = Annotated[str, StringConstraints(max_length=1024)]


class User(BaseModel):
    id: str
    kind: Literal["guest", "account"]
    display_name: str
    email: str | None
    is_admin: bool
    preferences: dict[str, Any]
    created_at: int = Field(description="ms since 1970")


class Credentials(BaseModel):
    """Who you are, and the tokens to say so: the access token in `Authorization: Bearer`, the refresh token once."""

    user: User
    access_token: str
    token_type: Literal["bearer"] = "bearer"
    expires_in: int = Field(description="seconds that the access token lives")
    refresh_token: str


class NewGuest(BaseModel):
    display_name: DisplayName


class NewUser(BaseModel):
    email: EmailStr
    password: Password
    display_name: DisplayName


class LogIn(BaseModel):
    email: str = Field(max_length=320)
    password: Password


class Refresh(BaseModel):
    refresh_token: str = Field(max_length=128)


class Profile(BaseModel):
    display_name: DisplayName | None = None
    preferences: dict[str, Any] | None = Field(
        default=None, description="merged into what is kept; at most 16 KiB"
    )


class PasswordChange(BaseModel):
    current_password: Password
    new_password: Password


class ResetRequest(BaseModel):
    email: str = Field(max_length=320)


class NewPassword(BaseModel):
    password: Password


class Ticket(BaseModel):
    """A one-time secret for one WebSocket: give it as `?token=`."""

    ticket: str
    expires_in: int
