"""A session's files: the tree, what is in it, zip, search, templates."""

from atelier.files.archive import ZIP_BODY, unpack
from atelier.files.catalogue import Template, template, templates
from atelier.files.routes import router
from atelier.files.service import FileEntry, first_text, list_files, read_all, seed

__all__ = [
    "ZIP_BODY",
    "FileEntry",
    "Template",
    "first_text",
    "list_files",
    "read_all",
    "router",
    "seed",
    "template",
    "templates",
    "unpack",
]
