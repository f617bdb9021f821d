"""Recipes that are compiled: the same training to rounding, once compiled per shape, and refused without a compiler."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pydt.base import ConfigError
from pydt.data import Dataset
from pydt.training import Recipe, train
from pydt.training.compiling import check_compiler, compiled

PLAIN = Recipe(network="convnet-8", steps=6, batch_size=20, lr=0.1)


def test_digests_of_recipes_that_are_not_compiled_stay() -> None:
    assert replace(PLAIN, compile=False).digest == PLAIN.digest
    assert "compile" not in PLAIN.described()
    assert replace(PLAIN, compile=True).digest != PLAIN.digest
    assert replace(PLAIN, compile=True).described()["compile"] is True
    assert Recipe(method="none", compile=True).digest == Recipe(method="none").digest, "nothing is trained"
    with pytest.raises(ConfigError, match="compile 1"):
        Recipe(compile=1)  # type: ignore[arg-type]


def test_without_a_compiler_nothing_is_trained(source: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(ConfigError, match=r"Recipe\.compile: there is no C\+\+ compiler 'no-such-compiler'"):
        train(source, None, replace(PLAIN, compile=True), 0)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"no C\+\+ compiler 'g\+\+'"):
        check_compiler(torch.device("cpu"))


@pytest.mark.slow
def test_code_of_other_shapes_is_dropped_before_torch_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch keeps code for eight shapes of a network and then goes on without compiling."""
    dropped: list[int] = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: dropped.append(len(made)))
    made: list[tuple[int, int]] = []
    recipe = replace(PLAIN, compile=True, lr=0.123)
    for batch, parts in [*((batch, 1) for batch in range(10, 20)), (19, 1), (19, 2), (10, 1)]:
        made.append((batch, parts))
        compiled(nn.Identity(), recipe, batch, parts)
    first, *rest = dropped
    assert first <= 9
    assert len(rest) <= 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_training_is_the_plain_one_to_rounding(
    source: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.utils import counters

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    counters.clear()
    recipe = replace(PLAIN, compile=True)

    def features(how: Recipe, seed: int, keep: Any = None) -> torch.Tensor:
        made = train(source, keep, how, seed)
        assert type(made.body).__name__ != "OptimizedModule", "evaluation and transfer are not compiled"
        return made.features(source)

    for seed in (0, 1):  # the second row uses the code of the first one
        assert torch.allclose(features(recipe, seed), features(PLAIN, seed), rtol=1e-3, atol=1e-4)
        assert counters["stats"]["unique_graphs"] == 1
    assert torch.equal(features(recipe, 0), features(recipe, 0))
    few = list(range(0, 160, 11))  # fewer than a batch: another shape, and the only other code
    assert torch.allclose(features(recipe, 0, few), features(PLAIN, 0, few), rtol=1e-3, atol=1e-4)
    assert counters["stats"]["unique_graphs"] == 2
    before = features(recipe, 0)
    torch.compiler.reset()
    assert torch.equal(features(recipe, 0), before), "the same code, whatever was compiled before"
