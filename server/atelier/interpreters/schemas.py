"""Wire shapes of interpreters and their cells."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class NewCell(BaseModel):
    code: str = Field(max_length=256 * 1024)
    path: str | None = Field(
        default=None,
        max_length=1024,
        description="the file that it stands in: its folder is where it imports from",
    )
    line: int | None = Field(default=None, ge=1, description="its first line in that file")


class NewCells(BaseModel):
    """Cells that belong together: when one fails or is stopped, those after it do not run."""

    cells: list[NewCell] = Field(min_length=1, max_length=50)


class CellError(BaseModel):
    name: str
    message: str
    text: str = Field(description="the traceback; it names cells by their number")
    place: tuple[int, int] | None = Field(description="the innermost line of a cell: [cell, line]")


class CellEvent(BaseModel):
    seq: int
    type: Literal["install", "stdout", "stderr", "stdin", "value", "note"]
    data: dict[str, Any] = Field(
        description="text in `data`; a value has `role`, `media_type` and `data` or the `number` of its file"
    )


class Cell(BaseModel):
    id: str
    session_id: str
    user_id: str | None
    user_name: str | None
    position: int = Field(description="their order in the session")
    batch: str = Field(description="those that were sent together")
    path: str | None
    line: int | None
    code: str = Field(description="in events its beginning only")
    status: Literal["queued", "running", "ended"]
    life: int | None = Field(
        description="of the interpreter: cells of another life do not share its variables"
    )
    number: int | None = Field(description="within that life, from 1")
    outcome: (
        Literal["done", "error", "interrupted", "wall_time", "output", "died", "skipped", "stopped"] | None
    )
    detail: str | None = Field(description="why, in words, where the outcome alone does not say")
    error: CellError | None
    wall_seconds: float | None
    created_at: int
    started_at: int | None
    ended_at: int | None
    events: list[CellEvent] | None = Field(
        default=None, description="what it printed and showed; null: ask for them"
    )


class Interpreter(BaseModel):
    session_id: str
    user_id: str | None
    user_name: str | None
    life: int
    created_at: int


class CellList(BaseModel):
    items: list[Cell] = Field(description="oldest first")
    interpreter: Interpreter | None = Field(default=None, description="null: the next cell starts one")


class CellEvents(BaseModel):
    items: list[CellEvent]


class CellInput(BaseModel):
    data: str = Field(max_length=8 * 1024)
