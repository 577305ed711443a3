from kilter.model.scorer import Scorer
def ensure_proven(model, *, autocast, strict):
    return Scorer(model, autocast=autocast)
