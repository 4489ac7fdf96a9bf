"""Wire shapes of terminals."""

from __future__ import annotations

from pydantic import BaseModel, Field


class NewTerminal(BaseModel):
    language: str | None = Field(
        default=None, max_length=40, description="null: by the entry's extension, else bash"
    )
    entry: str | None = Field(
        default=None,
        max_length=1024,
        description="a program to run in it; null: a shell, or the language's prompt",
    )
    args: list[str] = Field(default_factory=list, max_length=64)
    columns: int = Field(default=80, ge=1, le=1000)
    rows: int = Field(default=24, ge=1, le=1000)


class Terminal(BaseModel):
    id: str
    session_id: str
    user_id: str | None
    user_name: str | None
    title: str
    language: str
    entry: str | None
    created_at: int


class TerminalList(BaseModel):
    items: list[Terminal]
