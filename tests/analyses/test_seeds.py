"""Every analysis checks its seed first: a text would give other halves than the number that it looks like."""

from __future__ import annotations

from typing import Any

import pytest

from pydt import analyses
from pydt.base import ConfigError

SEEDED = (
    "analyse", "brittleness", "compare_outputs", "counterfactual", "failures", "influence_by_shots", "keep", "leaks",
    "misleading", "ranking", "removal_curve", "stability", "subpopulations",
)  # fmt: skip


@pytest.mark.parametrize("seed", ["a", "1", -1, 0.5, None, True])
@pytest.mark.parametrize("name", SEEDED)
def test_a_seed_is_a_whole_number(name: str, seed: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: seed .* is (not a whole number|out of range)"):
        getattr(analyses, name)(None, None, seed=seed)
