"""The shipped model of a simulated atmosphere: what is said of it, and that it has skill."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import xatmorep
from tests.simulated import open_sample
from xatmorep.model.card import Score
from xatmorep.model.registry import read_card, shipped

NAME = "simulated-multi-small"
PAGE = Path(__file__).parents[1] / "docs/how-to/simulate.md"
CARD = read_card(shipped()[NAME])
SIMPLE = ("climatology", "persistence", "time_interpolation", "interpolation")
SIMPLE_HIDDEN = (*SIMPLE, "anomaly_interpolation")


def rmse(**asked: float | str) -> dict[tuple[str, float], dict[str | None, Score]]:
    """RMSE of the model (None) and the baselines for one question, by field and level."""
    found: dict[tuple[str, float], dict[str | None, Score]] = {}
    for score in CARD.scores:
        if score.metric == "rmse" and all(getattr(score, k) == v for k, v in asked.items()):
            assert score.level is not None
            found.setdefault((score.field, score.level), {})[score.baseline] = score
    return found


def ratios(scores: dict[str | None, Score], *baselines: tuple[str, ...]) -> list[float]:
    """RMSE of the model as share of that of the best of some baselines, for each group of them."""
    return [
        scores[None].value / min(scores[name].value for name in names if name in scores)
        for names in baselines
    ]


def table(questions: dict[str, dict[str, float | str]], groups: dict[str, tuple[str, ...]]) -> str:
    """RMSE and ratios, a line for each field and level, and the means of the ratios."""
    head = ["field at sigma"]
    rows: dict[tuple[str, float], list[str]] = {}
    means = ["mean"]
    for question, asked in questions.items():
        head += [f"{question}: RMSE", *(f"of {group}" for group in groups)]
        found = rmse(**asked)
        shares = {place: ratios(scores, *groups.values()) for place, scores in found.items()}
        for place, scores in found.items():
            cells = [f"{scores[None].value:.3g} {scores[None].units}"]
            rows.setdefault(place, []).extend(cells + [f"{x:.2f}" for x in shares[place]])
        means += ["", *(f"{x:.2f}" for x in np.mean(list(shares.values()), axis=0))]
    lines = [head, ["---"] * len(head)]
    lines += [[f"{field} {level:g}", *cells] for (field, level), cells in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in [*lines, means])


HIDDEN = table(
    {"half hidden": {"rate": 0.5}, "nine tenths": {"rate": 0.9}},
    {
        "best simple": SIMPLE_HIDDEN,
        "kriging": ("kriging",),
        "drifting kriging": ("drifting_kriging",),
    },
)
FORECASTS = table(
    {"6 h": {"lead_time": "6h"}, "24 h": {"lead_time": "24h"}},
    {
        "persistence": ("persistence",),
        "best simple": ("climatology", "persistence"),
        "drifting kriging": ("drifting_kriging",),
    },
)


@pytest.mark.parametrize(("mark", "expected"), [("hidden", HIDDEN), ("forecasts", FORECASTS)])
def test_the_page_has_the_figures_of_the_card(mark: str, expected: str) -> None:
    block = re.search(rf"<!-- {mark} -->\n(.*?)\n<!-- /{mark} -->", PAGE.read_text(), re.DOTALL)
    if block is None or block[1] != expected:
        pytest.fail(f"the page has to say:\n{expected}", pytrace=False)


def test_commands_and_what_it_is() -> None:
    commands = {score.command for score in CARD.scores}
    assert len(commands) == 3
    page = " ".join(PAGE.read_text().replace("\\\n", " ").split())
    for command in commands:
        assert command.removesuffix(" --seed 0") in page
    assert CARD.demonstration
    assert "simulated" in CARD.description
    size = sum(file.stat().st_size for file in shipped()[NAME].iterdir())
    assert size < 25e6


def test_skill_on_days_that_it_has_not_seen() -> None:
    """Below all that is simple for every field and level, on other weather than in training."""
    sample = open_sample().isel(time=slice(0, 40)).load()
    scores = xatmorep.evaluate(
        NAME, sample, rate=0.5, baselines=("persistence", "time_interpolation", "interpolation")
    )
    assert float(scores["ratio"].sel(metric="rmse", baseline="best").max()) < 1
    crps, mae = (scores["score"].sel(metric=name, forecaster="model") for name in ("crps", "mae"))
    assert bool((crps < mae).all())
