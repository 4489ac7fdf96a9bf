"""Wire shapes of history. Positions are the log's: they grow, and are not consecutive. Times are ms since 1970."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, model_validator


class Author(BaseModel):
    id: str
    name: str = Field(description="empty for somebody whose account was deleted")
    edits: int
    inserted: int = Field(description="UTF-16 units")
    deleted: int = Field(description="UTF-16 units")


class Burst(BaseModel):
    """Edits that follow each other; `first` and `last` are positions."""

    first: int
    last: int
    started_at: int
    ended_at: int
    edits: int
    authors: list[Author]


class Mark(BaseModel):
    """A point worth going to: a named version, or by itself the state before a long pause ended."""

    kind: Literal["version", "automatic"]
    position: int
    at: int
    name: str = Field(default="", description="of a version")
    version_id: str | None = None


class History(BaseModel):
    items: list[Burst] = Field(description="newest first")
    marks: list[Mark] = Field(description="newest first")
    position: int = Field(description="of the newest edit; 0 when nobody wrote anything")
    edits: int = Field(description="all edits of the document")
    next: int | None = Field(description="give it as `before` for older ones")


class Point(BaseModel):
    position: int = Field(description="of the last edit that is in it")
    text: str


class Line(BaseModel):
    kind: Literal["same", "removed", "added"]
    text: str


class Hunk(BaseModel):
    """Lines that differ, with some around them; line numbers are 1-based."""

    old_line: int
    new_line: int
    lines: list[Line]


class Diff(BaseModel):
    hunks: list[Hunk]
    added: int = Field(description="lines")
    removed: int = Field(description="lines")
    truncated: bool = Field(description="there are more hunks than are sent")


class PlaybackStep(BaseModel):
    position: int
    at: int
    author: str
    changes: list[tuple[int, int, str]] = Field(
        description="place, how many units go there, what comes; one after the other, in UTF-16 units"
    )


class Playback(BaseModel):
    text: str = Field(description="before the first step")
    steps: list[PlaybackStep]
    names: dict[str, str] = Field(description="of the authors, by id")
    next: int | None = Field(description="give it as `after` for the following steps")


class RestorePoint(BaseModel):
    position: int = Field(ge=0)


class Rollback(BaseModel):
    """Whose edits, and which: positions `from` to `to`, both included."""

    author: str | None = Field(default=None, max_length=64)
    first: int | None = Field(default=None, alias="from", ge=0)
    last: int | None = Field(default=None, alias="to", ge=0)

    @model_validator(mode="after")
    def _chooses(self) -> Rollback:
        if self.author is None and self.first is None and self.last is None:
            raise ValueError("choose an author, or positions `from` or `to`")
        return self


class ForgetBefore(BaseModel):
    """The first point that stays."""

    position: int = Field(ge=1)


class Forgotten(BaseModel):
    """What was let go of, for good."""

    position: int = Field(description="the first point that is left; 0 when the document has none")
    edits: int = Field(description="how many edits have become one of nobody's")


class Changed(BaseModel):
    """What a restore or a rollback did; `undo_id` goes to `POST …/undos/{id}` within an hour."""

    changed: bool
    undo_id: str | None
    inserted: int = Field(description="UTF-16 units")
    deleted: int = Field(description="UTF-16 units")


class NewVersion(BaseModel):
    name: str = Field(min_length=1, max_length=80)
    document_id: str | None = Field(
        default=None, max_length=64, description="with `position`: a point of one file, not the session now"
    )
    position: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _is_whole(self) -> NewVersion:
        self.name = self.name.strip()
        if not self.name:
            raise ValueError("a version has a name")
        if (self.document_id is None) != (self.position is None):
            raise ValueError("`document_id` and `position` go together")
        return self


class Version(BaseModel):
    id: str
    name: str
    created_at: int
    by: str | None = Field(description="user id; null when the account was deleted")
    by_name: str
    document_id: str | None = Field(description="of a point of one file; null for the whole session")


class Versions(BaseModel):
    items: list[Version] = Field(description="newest first")


class VersionFile(BaseModel):
    path: str
    kind: Literal["text", "blob", "folder"]
    document_id: str | None
    position: int | None


class VersionWithFiles(Version):
    files: list[VersionFile]


class RestoredVersion(BaseModel):
    """What restoring did, by path; `undo_id` goes to `POST …/undos/{id}` within an hour."""

    changed: list[str]
    brought_back: list[str]
    moved: list[str]
    trashed: list[str] = Field(description="made since the version; they are in the trash")
    undo_id: str | None
