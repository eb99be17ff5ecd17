"""The figures of an evaluation: the paper's Figures 2 to 4, and image quality by method."""

from mpfnl.study.figures.distributions import overlap_figure, quality_figure
from mpfnl.study.figures.drawing import FIGURES, draw_figures
from mpfnl.study.figures.picking import Pick, Ranking, rank_studies
from mpfnl.study.figures.picture import Picture

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
