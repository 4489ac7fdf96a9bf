"""A backend of matplotlib: `plt.show()` makes a picture of every open figure and closes it."""

from atelier_figures import new_figure
from matplotlib._pylab_helpers import Gcf
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg

DOTS_PER_INCH = 144  # sharp also on a dense screen


class FigureManager(FigureManagerBase):
    """What pyplot knows a figure by."""

    def show(self):
        """Make a picture of this figure."""
        figure = self.canvas.figure
        figure.savefig(new_figure(".png"), dpi=max(figure.dpi, DOTS_PER_INCH), bbox_inches="tight")

    @classmethod
    def pyplot_show(cls, *, block=None):
        """Make pictures of all figures, in the order in which they were opened."""
        for manager in Gcf.get_all_fig_managers():
            manager.show()
            Gcf.destroy(manager)


class FigureCanvas(FigureCanvasAgg):
    """Drawn as Agg draws."""

    manager_class = FigureManager


def show(*, block=None):
    """Do what `pyplot_show` does, for versions before 3.7, which look for it here."""
    FigureManager.pyplot_show(block=block)
