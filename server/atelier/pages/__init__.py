"""What is rendered on the server: everything first seen is there before any script."""

from atelier.pages.render import problem_page
from atelier.pages.routes import router

__all__ = ["problem_page", "router"]
