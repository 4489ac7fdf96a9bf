"""The API and the hub of Atelier."""

__version__ = "0.1.0"
