"""A mean over three crossed random factors: seeds (trained models), few-shot draws, target images.

y_sdi = mean + seed + draw + image + their interactions, judged by sum_i w_i y_sdi, images drawn anew class by class.
Each mean square below estimates the share of its factor in the variance of the mean, and that of all interactions with
it; u_i = w_i y_i, a dot is a mean over seeds or draws and a weighted sum over images, r is what row and column means
leave over:

    V_s   = var_s(y_s..) / S                                V_d likewise
    V_i   = sum over classes c of n_c var(u_..i within c)
    V_sd  = sum r_sd^2 / ((S-1)(D-1) S D)
    V_si  = sum over c of n_c / (n_c-1) sum r_si^2 / ((S-1) S), r of u_s.i within c;   V_di and V_sdi likewise

    N_s = max(V_s - V_si, 0), N_d = max(V_d - V_di, 0), N_sd = max(V_sd - V_sdi, 0): without the part of the images
    variance = V_i + max(N_s + N_d - N_sd, N_s, N_d)
    df: those with which Student's t has the mean of these 97.5 % quantiles,
        that of variance^2 / (H_s^2 / (S-1) + H_d^2 / (D-1) + V_i^2 / (I - classes)) df,  H_s = max(V_s - V_si / 4, 0)
        (H_s t(S-1) + H_d t(D-1) + V_i t(I - classes)) / (H_s + H_d + V_i)

The variance is V_s + V_d + V_i - V_sd - V_si - V_di + V_sdi where no maximum binds, and never less than the error by
images with one other factor. A factor of one level drops out with its terms, and is named as unknown. SD of true
effects: of seeds S (V_s - V_sd - V_si + V_sdi), at least 0.

The quantiles are Satterthwaite's (Biometrics Bulletin 1946), too small where few seeds err more than many images, and
Cochran's (Biometrics 1964), too large. H, not V: the variance of V_s is 2 V_s^2 / (S-1), but what V_i knows already
cannot make the whole vary.

Coverage of 95 % intervals in per cent, 2,000 simulations a case, 3 seeds and 5 draws or 1 of 300 or 2,000 images:

                                                   accuracies    paired differences
    this file                                      95.5 - 97     93 - 98, where seeds do not differ to 99
    Satterthwaite's quantile                       95 - 97       93 - 98.5; 2 seeds that err much: 89
    Cochran's quantile                             97 - 98       95 - 99
    V_s for H, variance at least V_s and V_d       95 - 97       94 - 99, where images err most 1.3 times as wide
    V_s + V_d + V_i                                97 - 98       95 - 99.5
    t test of the seeds' means                     70 - 91       87 - 95
    images alone                                   82 - 96       61 - 95

Differences that are noise of images alone have too wide intervals: three seeds do not tell them from seeds that err
much and are alike by chance.

Sources: Searle, Casella and McCulloch, Variance Components, 1992, chapter 4; Brennan, Generalizability Theory, 2001.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import Z975, EstimateError, Result, t975
from pydt.estimation.inputs import Array
from pydt.estimation.wilson_interval import wilson

ROUNDING = 1e-9
"""An error below it, relative to the values, is one of rounding."""
_SIGN = {"s": 1, "d": 1, "i": 1, "sd": -1, "si": -1, "di": -1, "sdi": 1}
_FACTORS = {"s": "seeds", "d": "draws", "i": "images"}


@dataclass(frozen=True, repr=False)
class Crossed(Result):
    """A mean over seeds, draws and images.

    Attributes:
        mean: the weighted mean. stderr: its standard error. df: degrees of freedom.
        low, high: 95 %. Where nothing varies: Wilson's over the images (of differences, Newcombe's); infinite if some
            values lie beyond [-1, 1], since then nothing is known of their spread.
        p: two-sided, of a mean of 0; 1 where nothing varies and the mean is 0.
        seeds, draws, images: how many.
        sd_seeds, sd_draws: standard deviation of the true effects of seeds and of draws, at least 0; NaN where there is
            one alone.
        unknown: those of "seeds", "draws", "images" of which there is one alone: their spread is not in the error.
    """

    mean: float
    stderr: float
    df: float
    low: float
    high: float
    p: float
    seeds: int
    draws: int
    images: int
    sd_seeds: float
    sd_draws: float
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class MeanSquares:
    """Means (...,) and the V of the file's head by letters of the factors, each (...,), with degrees of freedom."""

    mean: Array
    squares: Mapping[str, Array]
    df: Mapping[str, float]

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of the factors of one level."""
        return tuple(name for letter, name in _FACTORS.items() if letter not in self.squares)

    def variance(self) -> tuple[Array, Array]:
        """Variance of the means and its degrees of freedom, each (...,); (0, 1) where nothing varies."""
        from scipy.special import stdtridf, stdtrit

        none = np.zeros_like(self.mean)
        v = {name: self.squares.get(name, none) for name in _SIGN}
        net = {name: np.maximum(v[name] - v[name + "i"], 0.0) for name in ("s", "d", "sd")}
        both = net["s"] + net["d"] - net["sd"]
        total = v["i"] + np.maximum(both, np.maximum(net["s"], net["d"]))
        gross = {name: np.maximum(v[name] - v[name + "i"] / 4, 0.0) for name in "sd"} | {"i": v["i"]}
        summed, squared, weighted = none.copy(), none.copy(), none.copy()
        for name in set(gross) & set(self.df):
            summed += gross[name]
            squared += gross[name] ** 2 / self.df[name]
            weighted += gross[name] * t975(self.df[name])
        known = squared > np.finfo(np.float64).tiny
        one = np.ones_like(none)
        by_satterthwaite = stdtrit(np.divide(total**2, squared, out=one.copy(), where=known), 0.975)
        by_cochran = np.divide(weighted, summed, out=one.copy(), where=known)
        df = stdtridf(0.975, (by_satterthwaite + by_cochran) / 2)
        return np.where(known, total, 0.0), np.where(known, df, 1.0)

    def effect(self, letter: str) -> Array:
        """SD of the true effects of seeds ("s") or draws ("d"); NaN where there is one alone."""
        if letter not in self.squares:
            return np.full_like(self.mean, np.nan)
        share = sum(_SIGN[name] * square for name, square in self.squares.items() if letter in name)
        return np.sqrt(np.maximum(share, 0.0) * (self.df[letter] + 1))


@dataclass(frozen=True)
class Images:
    """Checked weights of images, and their classes.

    weights: (I,), in the order of the classes. order: of the images so that classes stand together. where: class of
    each ordered image. first: where each class starts. sizes: images of each.
    """

    weights: Array
    order: npt.NDArray[np.int64]
    where: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    def inside(self, values: Array) -> Array:
        """Sum over classes of n/(n-1) times the squared deviations (..., I) from the class mean."""
        means = np.add.reduceat(values, self.first, axis=-1) / self.sizes
        factor = self.sizes / np.maximum(self.sizes - 1, 1)
        return np.asarray((values - means[..., self.where]) ** 2 @ factor[self.where])


def images_of(count: int, weights: npt.ArrayLike | None, labels: npt.ArrayLike | None, place: str) -> Images:
    """Check weights and labels; a class of one image joins the others of one image, or else the largest class."""
    w = np.full(count, 1 / count) if weights is None else np.asarray(weights, np.float64)
    if w.shape != (count,):
        raise EstimateError(f"weights {w.shape} of {count} images", place, "give one weight for each image")
    if not (np.isfinite(w).all() and (w >= 0).all() and abs(w.sum() - 1) < 1e-4):
        raise EstimateError(f"weights sum to {w.sum():g}", place, "give weights of at least 0 that sum to 1")
    own = np.zeros(count, np.int64) if labels is None else np.asarray(labels)
    if own.shape != (count,):
        raise EstimateError(f"labels {own.shape} of {count} images", place, "give one label for each image")
    _, inverse, sizes = np.unique(own, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    alone = sizes[inverse] == 1
    inverse[alone] = len(sizes) if alone.sum() > 1 else np.argmax(sizes)
    _, inverse = np.unique(inverse, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    where = inverse.reshape(-1)[order]
    first = np.flatnonzero(np.diff(where, prepend=-1))
    return Images(w[order], order, where, first, np.diff(first, append=count))


def checked(values: Any, dimensions: int, place: str) -> Array:
    """Finite float64 values of so many dimensions, of which the last three are seeds, draws and images."""
    y = np.asarray(values, np.float64)
    if y.ndim != dimensions or 0 in y.shape:
        axes = ("arms, " if dimensions == 4 else "") + "seeds, draws, images"
        raise EstimateError(f"values of shape {y.shape}", place, f"give an array ({axes}) with one of each at least")
    if not np.isfinite(y).all():
        raise EstimateError("values that are not finite", place, "leave out seeds whose rows failed")
    return y


def mean_squares(values: Array, images: Images) -> MeanSquares:
    """Means and mean squares of values (..., S, D, I); formulas at the top."""
    (s, d, count), classes = values.shape[-3:], len(images.sizes)
    u = values[..., images.order] * images.weights
    u_si, u_di = u.mean(-2), u.mean(-3)
    u_i = u_si.mean(-2)
    y_sd = u.sum(-1)
    y_s, y_d = y_sd.mean(-1), y_sd.mean(-2)
    mean = y_s.mean(-1)
    squares: dict[str, Array] = {}
    if s > 1:
        squares["s"] = y_s.var(-1, ddof=1) / s
    if d > 1:
        squares["d"] = y_d.var(-1, ddof=1) / d
    if s > 1 and d > 1:
        rest = y_sd - y_s[..., None] - y_d[..., None, :] + mean[..., None, None]
        squares["sd"] = (rest**2).sum((-2, -1)) / ((s - 1) * (d - 1) * s * d)
    if count > 1:
        squares["i"] = images.inside(u_i)
        if s > 1:
            squares["si"] = images.inside(u_si - u_i[..., None, :]).sum(-1) / ((s - 1) * s)
        if d > 1:
            squares["di"] = images.inside(u_di - u_i[..., None, :]).sum(-1) / ((d - 1) * d)
        if s > 1 and d > 1:
            rest = u - u_si[..., None, :] - u_di[..., None, :, :] + u_i[..., None, None, :]
            squares["sdi"] = images.inside(rest).sum((-2, -1)) / ((s - 1) * (d - 1) * s * d)
    each = {"s": s - 1, "d": d - 1, "i": count - classes}
    return MeanSquares(mean, squares, {name: float(np.prod([each[k] for k in name])) for name in squares})


def crossed(
    values: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    labels: npt.ArrayLike | None = None,
    *,
    difference: bool = False,
) -> Crossed:
    """The weighted mean over seeds, draws and images as crossed random factors, with its error.

    Args:
        values: (seeds, draws, images), such as 1 where the image is classified correctly and 0 elsewhere.
        weights: (images,) of the metric, at least 0, with the sum 1; equal by default.
        labels: (images,) classes, within which images are drawn anew; one class by default.
        difference: the values are differences of two arms, paired by seed, draw and image. Otherwise the interval of
            values in [0, 1] lies in [0, 1], too.

    Raises:
        EstimateError: shapes that do not fit, values that are not finite, weights that do not sum to 1.
    """
    y = checked(values, 3, "crossed")
    images = images_of(y.shape[-1], weights, labels, "crossed")
    found = mean_squares(y, images)
    variance, df = found.variance()
    return judged(y, images, found, float(variance), float(df), difference)


def judged(y: Array, images: Images, found: MeanSquares, variance: float, df: float, difference: bool) -> Crossed:
    """Interval and p of the mean of values (S, D, I), given its variance and degrees of freedom."""
    from scipy.special import stdtr

    mean, stderr = float(found.mean), variance**0.5
    if stderr > ROUNDING * float(np.abs(y).max()):
        low, high = mean - t975(df) * stderr, mean + t975(df) * stderr
        p = float(2 * stdtr(df, -abs(mean) / stderr))
        if not difference and y.min() >= 0 and y.max() <= 1:
            low, high = max(low, 0.0), min(high, 1.0)
    else:
        stderr = 0.0
        mean = round(mean, 12)  # values that are alike differ from their mean by rounding alone
        low, high, p = _unvaried(y, mean, images, difference)
    return Crossed(
        mean,
        stderr,
        df,
        low,
        high,
        p,
        y.shape[0],
        y.shape[1],
        y.shape[2],
        float(found.effect("s")),
        float(found.effect("d")),
        found.unknown,
    )


def _unvaried(y: Array, mean: float, images: Images, difference: bool) -> tuple[float, float, float]:
    """Interval and p where no error is seen. All images alike is no proof that they always are: Wilson's interval of
    the share above 0, and for differences of that below 0, too, put together as Newcombe (1998, method 10) does."""
    from scipy.special import ndtr

    if np.abs(y).max() > 1:
        return -np.inf, np.inf, 1.0
    trials = float(1 / (images.weights**2).sum())
    above, below = max(mean, 0.0), max(-mean, 0.0)
    low, high = wilson(above, trials)
    if difference or mean < 0:
        least, most = wilson(below, trials)
        low, high = mean - np.hypot(above - low, most - below), mean + np.hypot(high - above, below - least)
    reach = mean - low if mean > 0 else high - mean
    return float(low), float(high), 1.0 if mean == 0 else float(2 * ndtr(-Z975 * abs(mean) / reach))
