"""The whole schema. Times are milliseconds since 1970 (UTC); ids are `atelier.ids` strings; secrets are SHA-256 in hex."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[str]:
    return Column("id", String(64), primary_key=True)


def _user(name: str = "user_id", *, nullable: bool = False) -> Column[str]:
    return Column(
        name,
        ForeignKey("users.id", ondelete="SET NULL" if nullable else "CASCADE"),
        nullable=nullable,
        index=True,
    )


def _session() -> Column[str]:
    return Column("session_id", ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False, index=True)


def _time(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


# --- people -------------------------------------------------------------------------------------------------------
users = Table(
    "users",
    metadata,
    _id(),
    Column("kind", String(8), nullable=False),  # guest | account
    Column("display_name", String(80), nullable=False),
    Column("email", String(320), unique=True),  # lower case; NULL for guests
    Column("password_hash", Text),
    Column("is_admin", Boolean, nullable=False, default=False),
    Column("preferences", JSON, nullable=False, default=dict),
    _time("created_at"),
    _time("seen_at"),
)
# A login: one browser's cookie or one API client's refresh token. `family` ties the rotations of one refresh token.
logins = Table(
    "logins",
    metadata,
    _id(),
    _user(),
    Column("secret_hash", String(64), nullable=False, unique=True),
    Column("kind", String(8), nullable=False),  # cookie | refresh
    Column("family", String(64), nullable=False, index=True),
    Column("used_at", BigInteger),  # a refresh token that comes a second time ends its family
    _time("created_at"),
    _time("expires_at"),
)
# One-time secrets with a purpose: socket tickets and password resets.
tickets = Table(
    "tickets",
    metadata,
    Column("secret_hash", String(64), primary_key=True),
    Column("purpose", String(16), nullable=False),  # socket | reset
    _user(),
    _time("expires_at"),
)
# Settings that an admin changes while the server runs: name -> JSON value.
switches = Table(
    "switches", metadata, Column("name", String(64), primary_key=True), Column("value", JSON, nullable=False)
)

# --- sessions -----------------------------------------------------------------------------------------------------
sessions = Table(
    "sessions",
    metadata,
    _id(),
    Column("name", String(120), nullable=False),
    Column("entry", String(1024)),  # path that Run takes when no file is open
    _user("created_by", nullable=True),
    _time("created_at"),
    _time("updated_at"),
    _time("archived_at", nullable=True),
    _time("deleted_at", nullable=True),
    # Who let its programs reach the internet, and since when; NULL: they do not.
    _user("egress_by", nullable=True),
    _time("egress_at", nullable=True),
)
links = Table(
    "links",
    metadata,
    _id(),
    _session(),
    Column("secret_hash", String(64), nullable=False, unique=True),
    Column("role", String(8), nullable=False),
    Column("max_uses", Integer),
    Column("uses", Integer, nullable=False, default=0),
    _user("created_by", nullable=True),
    _time("created_at"),
    _time("expires_at", nullable=True),
    _time("revoked_at", nullable=True),
)
members = Table(
    "members",
    metadata,
    Column("session_id", ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True),
    Column("role", String(8), nullable=False),  # owner | edit | run | comment | view
    Column("link_id", ForeignKey("links.id", ondelete="SET NULL")),
    _time("joined_at"),
    _time("opened_at"),
)
# What happened in a session, numbered from 1 without gaps; the events socket resumes from any number.
events = Table(
    "events",
    metadata,
    Column("session_id", ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("type", String(40), nullable=False),
    Column("data", JSON, nullable=False),
    _time("at"),
)
# The inverse of a server-side edit over several documents, kept for a while so that it can be undone.
undos = Table(
    "undos",
    metadata,
    _id(),
    _session(),
    _user(),
    Column("updates", LargeBinary, nullable=False),
    _time("created_at"),
)

# --- history ------------------------------------------------------------------------------------------------------
# A named point: of a whole session (its tree and every document), or of one document. Positions are the log's.
versions = Table(
    "versions",
    metadata,
    _id(),
    _session(),
    _user(nullable=True),
    Column("name", String(80), nullable=False),
    Column("document_id", String(64)),  # the one that it is of; NULL for the whole session
    Column("positions", JSON, nullable=False),  # document id -> position
    _time("created_at"),
)
# Who wrote when, grouped: derived from the log, so it may be emptied at any time.
bursts = Table(
    "bursts",
    metadata,
    Column("session_id", ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("document_id", String(64), primary_key=True),
    Column("first", BigInteger, primary_key=True, autoincrement=False),  # positions in the log
    Column("last", BigInteger, nullable=False),
    _time("started_at"),
    _time("ended_at"),
    Column("edits", Integer, nullable=False),
    Column("authors", JSON, nullable=False),  # user id -> edits, inserted, deleted
)

# --- runs ---------------------------------------------------------------------------------------------------------
runs = Table(
    "runs",
    metadata,
    _id(),
    _session(),
    _user(nullable=True),
    Column("language", String(32), nullable=False),
    Column("entry", String(1024), nullable=False),
    Column("args", JSON, nullable=False),
    Column("limits", JSON, nullable=False),
    Column("status", String(12), nullable=False),  # queued | running | ended
    Column("result", JSON),  # reason, code, signal, wall_seconds, cpu_seconds, peak_memory_bytes
    Column("files", JSON),  # what became of what it wrote
    _time("created_at"),
    _time("started_at", nullable=True),
    _time("ended_at", nullable=True),
    Column("holder", String(64)),  # the server process that runs it, and when that last said so
    _time("held_at", nullable=True),
)
run_events = Table(
    "run_events",
    metadata,
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("type", String(12), nullable=False),
    Column("data", JSON, nullable=False),
    _time("at"),
)
# What a run left to be shown, as it was then; goes with the run, or earlier when newer ones need the room.
run_files = Table(
    "run_files",
    metadata,
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("path", String(1024), nullable=False),
    Column("media_type", String(80), nullable=False),
    Column("size", Integer, nullable=False),
    Column("content", LargeBinary, nullable=False),
)

# Open terminals; one that has ended has no row.
terminals = Table(
    "terminals",
    metadata,
    _id(),
    _session(),
    _user(nullable=True),
    Column("title", String(1024), nullable=False),
    Column("language", String(32), nullable=False),
    Column("entry", String(1024)),
    _time("created_at"),
    Column(
        "holder", String(64), nullable=False
    ),  # the server process that has it, and when that last said so
    _time("held_at"),
)

# A session's interpreter while there is one, and what it has been sent; `life` counts how often it has begun anew.
interpreters = Table(
    "interpreters",
    metadata,
    Column("session_id", ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    _user(nullable=True),  # whose cell began it
    Column("life", Integer, nullable=False),
    _time("created_at"),
    Column(
        "holder", String(64), nullable=False
    ),  # the server process that has it, and when that last said so
    _time("held_at"),
)
cells = Table(
    "cells",
    metadata,
    _id(),
    _session(),
    _user(nullable=True),
    Column("position", BigInteger, nullable=False),  # their order in the session
    Column("batch", String(64), nullable=False),  # those that were sent together
    Column("path", String(1024)),  # the file that it stands in, and its first line there
    Column("line", Integer),
    Column("code", Text, nullable=False),
    Column("status", String(12), nullable=False),  # queued | running | ended
    Column("life", Integer),
    Column("number", Integer),  # within that life
    Column("outcome", String(12)),
    Column("detail", String(400)),
    Column("error", JSON),
    Column("wall_seconds", Float),
    _time("created_at"),
    _time("started_at", nullable=True),
    _time("ended_at", nullable=True),
)
cell_events = Table(
    "cell_events",
    metadata,
    Column("cell_id", ForeignKey("cells.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("type", String(12), nullable=False),
    Column("data", JSON, nullable=False),
    _time("at"),
)
# Figures and other rich values.
cell_files = Table(
    "cell_files",
    metadata,
    Column("cell_id", ForeignKey("cells.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("media_type", String(80), nullable=False),
    Column("size", Integer, nullable=False),
    Column("content", LargeBinary, nullable=False),
)

Index("ix_cells_session_position", cells.c.session_id, cells.c.position)
Index("ix_runs_session_created", runs.c.session_id, runs.c.created_at)
