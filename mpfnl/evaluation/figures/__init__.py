"""The figures of an evaluation: the paper's Figures 2 to 4, and image quality by method."""

from mpfnl.evaluation.figures.distributions import overlap_figure, quality_figure
from mpfnl.evaluation.figures.drawing import FIGURES, draw_figures
from mpfnl.evaluation.figures.picking import Pick, Ranking, rank_studies
from mpfnl.evaluation.figures.picture import Picture

__all__ = [
    "FIGURES",
    "Pick",
    "Picture",
    "Ranking",
    "draw_figures",
    "overlap_figure",
    "quality_figure",
    "rank_studies",
]
