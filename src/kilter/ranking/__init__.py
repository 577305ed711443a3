"""Bradley-Terry and Plackett-Luce: strengths, honest intervals and predictions, from comparisons."""

from kilter.ranking.agreement import judge_agreement
from kilter.ranking.bradley_terry import Prediction, Ranking, fit_comparisons
from kilter.ranking.checks import calibration, deviance, likelihood_ratio, residuals
from kilter.ranking.comparisons import UNRANKED, Comparisons, Rankings
from kilter.ranking.connectivity import Connectivity, UnidentifiedError, connectivity
from kilter.ranking.cross_validation import cross_validate
from kilter.ranking.fit import fit
from kilter.ranking.fitted import Fitted
from kilter.ranking.iterations import minorize_maximize, newman
from kilter.ranking.newton import NotConvergedError
from kilter.ranking.objective import gradient, log_likelihood, loss
from kilter.ranking.online import Elo, Glicko
from kilter.ranking.pictures import draw
from kilter.ranking.plackett_luce import RankingsFit, RankingsPrediction, fit_rankings
from kilter.ranking.ranks import probability_best, rank_intervals
from kilter.ranking.reading.tables import read_comparisons
from kilter.ranking.resampling import bootstrap
from kilter.ranking.schedule import suggest_matches
from kilter.ranking.separation import SeparatedError
from kilter.ranking.triads import transitivity
from kilter.ranking.uncertainty import Estimate

__all__ = [
    "UNRANKED",
    "Comparisons",
    "Connectivity",
    "Elo",
    "Estimate",
    "Fitted",
    "Glicko",
    "NotConvergedError",
    "Prediction",
    "Ranking",
    "Rankings",
    "RankingsFit",
    "RankingsPrediction",
    "SeparatedError",
    "UnidentifiedError",
    "bootstrap",
    "calibration",
    "connectivity",
    "cross_validate",
    "deviance",
    "draw",
    "fit",
    "fit_comparisons",
    "fit_rankings",
    "gradient",
    "judge_agreement",
    "likelihood_ratio",
    "log_likelihood",
    "loss",
    "minorize_maximize",
    "newman",
    "probability_best",
    "rank_intervals",
    "read_comparisons",
    "residuals",
    "suggest_matches",
    "transitivity",
]
