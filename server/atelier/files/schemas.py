"""Wire shapes of files."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class File(BaseModel):
    id: str
    path: str
    kind: Literal["text", "blob", "folder"]
    size: int = Field(description="bytes")
    document_id: str | None = Field(description="of a text: the document to open over a socket")
    media_type: str
    trashed: int | None = Field(default=None, description="ms since 1970")


class Files(BaseModel):
    items: list[File]


class NewFolder(BaseModel):
    path: str = Field(max_length=4096)


class Move(BaseModel):
    source: str = Field(alias="from", max_length=4096)
    to: str = Field(max_length=4096)


class Removed(BaseModel):
    """Give each id to `POST …/trash/{id}/restore` to bring it back."""

    ids: list[str]


class Match(BaseModel):
    line: int = Field(description="1-based")
    column: int = Field(description="0-based, UTF-16 units")
    length: int = Field(description="UTF-16 units")
    text: str
    text_column: int


class FileMatches(BaseModel):
    path: str
    document_id: str
    matches: list[Match]


class SearchResult(BaseModel):
    items: list[FileMatches]
    truncated: bool


class Replacement(BaseModel):
    q: str
    replacement: str
    regex: bool = False
    case: bool = False
    word: bool = False
    paths: list[str] | None = Field(default=None, description="only in these files")


class Replaced(BaseModel):
    id: str = Field(description="give it to `POST …/undos/{id}` to take it back")
    files: int
    replacements: int


class Undone(BaseModel):
    files: int


class GitImport(BaseModel):
    url: str = Field(max_length=2_000, description="the https address that Git clones from")
    ref: str = Field(default="", max_length=250, description="a branch or a tag; empty: the default branch")
    into: str = Field(default="", max_length=1024, description="the folder to put it into; empty: the top")


class LeftOut(BaseModel):
    path: str
    code: str = Field(
        description="symlink, submodule, lfs, too_large, too_deep, git_folder, path_encoding, twin, or a path_… code"
    )
    reason: str


class Imported(BaseModel):
    paths: list[str]
    left_out: list[LeftOut] = Field(default=[], description="what no file was made of")
    ref: str | None = Field(default=None, description="the branch or tag that was imported")
    commit: str | None = None
