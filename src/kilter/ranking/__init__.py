"""Bradley-Terry and Plackett-Luce: strengths, honest intervals and predictions, from comparisons."""

from kilter.ranking.bradley_terry import fit_comparisons
from kilter.ranking.comparisons import UNRANKED, Comparisons, Rankings
from kilter.ranking.connectivity import Connectivity, UnidentifiedError, connectivity
from kilter.ranking.fit import fit
from kilter.ranking.fitted import Prediction, Ranking
from kilter.ranking.newton import NotConvergedError
from kilter.ranking.objective import gradient, log_likelihood, loss
from kilter.ranking.online import Elo, Glicko
from kilter.ranking.plackett_luce import RankingsFit, RankingsPrediction, fit_rankings
from kilter.ranking.ranks import probability_best, rank_intervals
from kilter.ranking.separation import SeparatedError
from kilter.ranking.uncertainty import Estimate

__all__ = [
    "UNRANKED",
    "Comparisons",
    "Connectivity",
    "Elo",
    "Estimate",
    "Glicko",
    "NotConvergedError",
    "Prediction",
    "Ranking",
    "Rankings",
    "RankingsFit",
    "RankingsPrediction",
    "SeparatedError",
    "UnidentifiedError",
    "connectivity",
    "fit",
    "fit_comparisons",
    "fit_rankings",
    "gradient",
    "log_likelihood",
    "loss",
    "probability_best",
    "rank_intervals",
]
