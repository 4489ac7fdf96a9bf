"""Figures of a run: files in a folder of their own, in the order in which the program showed them."""

import os
import sys

FOLDER = os.environ.get("ATELIER_FIGURES", "/work/.atelier/figures")


def new_figure(ending):
    """Make the next figure's file; returns its path."""
    os.makedirs(FOLDER, exist_ok=True)
    number = len(os.listdir(FOLDER))
    while True:
        number += 1
        path = os.path.join(FOLDER, f"{number:03}{ending}")
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            continue
        if sys.stderr.isatty():  # in a terminal nothing shows it
            print(f"The figure is in {path}", file=sys.stderr)
        return path


def teach_plotly(module):
    """Make `fig.show()` add to one page: plotly's own program is several megabytes, so it is in there once."""
    page = []

    class Renderer(module.ExternalRenderer):
        def render(self, fig_dict):
            from plotly.io import to_html

            first = not page or not os.path.exists(page[0])  # a cell's page is taken away once it is shown
            if first:
                page[:] = [new_figure(".html")]
            part = to_html(
                fig_dict, include_plotlyjs=first, full_html=False, validate=False, config={"responsive": True}
            )
            with open(page[0], "a", encoding="utf-8") as file:
                if first:
                    file.write('<!doctype html><meta charset="utf-8"><style>body { margin: 0 }</style>\n')
                file.write(part + "\n")

    module.renderers["atelier"] = Renderer()
    if not os.environ.get("PLOTLY_RENDERER"):
        module.renderers.default = "atelier"
