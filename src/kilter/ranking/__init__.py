"""Bradley-Terry and Plackett-Luce: strengths, honest intervals and predictions, from comparisons."""

from kilter.ranking.comparisons import UNRANKED, Comparisons, Rankings
from kilter.ranking.connectivity import Connectivity, UnidentifiedError, connectivity
from kilter.ranking.fit import fit_comparisons
from kilter.ranking.fitted import Prediction, Ranking
from kilter.ranking.newton import NotConvergedError
from kilter.ranking.objective import gradient, log_likelihood, loss
from kilter.ranking.separation import SeparatedError
from kilter.ranking.uncertainty import Estimate

__all__ = [
    "UNRANKED",
    "Comparisons",
    "Connectivity",
    "Estimate",
    "NotConvergedError",
    "Prediction",
    "Ranking",
    "Rankings",
    "SeparatedError",
    "UnidentifiedError",
    "connectivity",
    "fit_comparisons",
    "gradient",
    "log_likelihood",
    "loss",
]
