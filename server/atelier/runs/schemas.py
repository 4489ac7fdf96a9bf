"""Wire shapes of runs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from atelier.sandbox import Reason


class LimitsAsked(BaseModel):
    """Lower bounds than the server's; null takes the server's."""

    wall_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    cpu_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    memory_mb: int | None = Field(default=None, gt=0)
    processes: int | None = Field(default=None, gt=0)
    disk_mb: int | None = Field(default=None, gt=0)
    output_bytes: int | None = Field(default=None, gt=0)


class NewRun(BaseModel):
    language: str | None = Field(default=None, max_length=40, description="null: by the entry's extension")
    entry: str | None = Field(default=None, max_length=1024, description="null: the session's entry")
    open: str | None = Field(
        default=None,
        max_length=1024,
        description="a file that is looked at: without `entry` it runs if it is a program, before the session's entry",
    )
    args: list[str] = Field(default_factory=list, max_length=64)
    stdin: str | None = Field(
        default=None, max_length=1024 * 1024, description="given and closed; null keeps it open"
    )
    limits: LimitsAsked = Field(default_factory=LimitsAsked)


class Result(BaseModel):
    reason: Reason
    code: int | None
    signal: str | None
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    detail: str = ""


class Run(BaseModel):
    id: str
    session_id: str
    user_id: str | None
    user_name: str | None
    language: str
    entry: str
    args: list[str]
    limits: dict[str, Any]
    status: Literal["queued", "running", "ended"]
    position: int | None = Field(default=None, description="runs before this one in the queue")
    result: Result | None
    created_at: int
    started_at: int | None
    ended_at: int | None


class RunList(BaseModel):
    items: list[Run]


class Stdin(BaseModel):
    data: str = Field(default="", max_length=64 * 1024)
    close: bool = False


class LanguageShown(BaseModel):
    name: str
    title: str
    extensions: list[str]
    version: str = Field(description="empty: not installed, see hint")
    hint: str


class ControlShown(BaseModel):
    name: str
    state: Literal["enforced", "partial", "absent"]
    detail: str


class Runtimes(BaseModel):
    available: bool
    hint: str
    languages: list[LanguageShown]
    controls: list[ControlShown]
