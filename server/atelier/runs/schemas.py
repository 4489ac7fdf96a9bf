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
    priority: Literal["normal", "low"] = Field(default="normal", description="low: after everybody who waits")


class Result(BaseModel):
    reason: Reason
    code: int | None
    signal: str | None
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    detail: str = ""


class RunFile(BaseModel):
    """A file that the program made or changed, or a figure that it showed."""

    path: str
    kind: Literal["file", "figure"]
    change: Literal["created", "changed"]
    size: int = Field(description="bytes, as the program left it")
    place: str | None = Field(
        description="where it is in the session since then; null: it is not in the session"
    )
    number: int | None = Field(description="what is kept with the run: `GET …/files/{number}`")
    media_type: str


class RunLeftOut(BaseModel):
    path: str
    code: str
    reason: str


class RunFiles(BaseModel):
    """What became of the files that a run wrote."""

    items: list[RunFile] = Field(default_factory=list)
    deleted: list[str] = Field(default_factory=list, description="in the trash since then")
    left_out: list[RunLeftOut] = Field(
        default_factory=list, description="what was not taken over; the first 50"
    )
    left_out_count: int = 0
    complete: bool = Field(default=True, description="false: there was no time to look at all of them")
    not_written: str | None = Field(default=None, description="why nothing was written into the session")
    undo_id: str | None = Field(
        default=None, description="give it to `POST …/undos/{id}` within an hour to take all of it back"
    )


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
    files: RunFiles | None = Field(
        default=None, description="null: it wrote none, or none could be collected"
    )
    created_at: int
    started_at: int | None
    ended_at: int | None


class RunList(BaseModel):
    items: list[Run]


class Stdin(BaseModel):
    data: str = Field(default="", max_length=64 * 1024)
    close: bool = False


class Signal(BaseModel):
    signal: Literal["INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "KILL", "STOP", "CONT"]


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
