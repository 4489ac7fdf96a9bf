"""The relational database: accounts, sessions, links, runs."""

from atelier.db.engine import Database, open_database

__all__ = ["Database", "open_database"]
