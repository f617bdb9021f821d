"""How far apart the true means of several arms lie, such as sources, beyond the noise of their estimates.

With arms a of means m_a over crossed seeds, draws and images (`crossed`), and c_a = y_a - mean over arms of y, in which
what is common to all arms cancels, such as how hard a draw or an image is:

    v     = the variance of `crossed` by mean squares of c: their sum over the arms / (A - 1), and A - 1 times the df
    F     = sum_a (m_a - mean)^2 / (A - 1) / v,   p of tau = 0 by F(A - 1, df)
    tau^2 = max(sum_a (m_a - mean)^2 / (A - 1) - v, 0)
    interval: all tau with F v / (v + tau^2) between the 2.5 and 97.5 % quantiles of F(A - 1, df (1 + tau^2 / v)^2)

the Q-profile of Viechtbauer (Statistics in Medicine 2007), but with F for chi-square, since v is estimated: by
Satterthwaite, v + tau^2 has the more degrees of freedom the less of it is estimated. True means are taken as drawn from
a normal distribution of SD tau; errors as alike in all arms. The range that noise alone gives is that of the
studentized range: its quantile for A arms and df degrees of freedom times v^0.5, its mean that of A normal numbers.

Simulated in 2,000 repeats of 4 arms, 3 seeds, 5 draws, 300 images: of equal arms 4 to 5 % have p < 0.05, also where the
errors of one arm's seeds have 9 times the variance; a tau of 1.5, 3 and 7 points is found in 27, 66 and 96 %, and its
intervals hold 95 to 96 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from pydt.base import Z975, EstimateError, Result
from pydt.estimation.crossed_mean import ROUNDING, Images, MeanSquares, checked, images_of, mean_squares
from pydt.estimation.inputs import Array
from pydt.estimation.wilson_interval import wilson


@dataclass(frozen=True, repr=False)
class Spread(Result):
    """How far apart the means of arms lie.

    Attributes:
        arms: how many. mean: of their means.
        tau: standard deviation of their true means, at least 0. low, high: 95 %.
        p: of tau = 0. df: degrees of freedom of the error.
        stderr: of one arm's mean about the common mean. Where nothing varies but the arms, what Wilson's interval says.
        range: the largest less the smallest mean. range_of_noise, range_high: mean and 95 % quantile of the range if
            tau were 0.
        best, worst: numbers of the arms with the largest and the smallest mean.
        unknown: those of "seeds", "draws", "images" of which there is one alone: their spread is not in the error.
    """

    arms: int
    mean: float
    tau: float
    low: float
    high: float
    df: float
    p: float
    stderr: float
    range: float
    range_of_noise: float
    range_high: float
    best: int
    worst: int
    unknown: tuple[str, ...]


def spread(arms: npt.ArrayLike, weights: npt.ArrayLike | None = None, labels: npt.ArrayLike | None = None) -> Spread:
    """The standard deviation of the true means of arms, with an interval and a test of 0; formulas at the top.

    Args:
        arms: (arms, seeds, draws, images), two arms or more, paired by draw and image.
        weights, labels: of the images, as in `crossed`.

    Raises:
        EstimateError: as `crossed`; one arm alone.
    """
    y = arms_of(arms, "spread")
    images = images_of(y.shape[-1], weights, labels, "spread")
    means, found = common_error(y, images)
    variance, df = map(float, found.variance())
    largest = float(np.abs(y).max())
    if variance**0.5 <= ROUNDING * largest:
        # nothing varies, which is no proof that nothing does: what Wilson's interval says of as many alike images
        trials = float(1 / (images.weights**2).sum())
        variance, df = (max(largest, 1.0) * wilson(0.0, trials)[1] / Z975) ** 2, float(found.df.get("i", 1.0))
    tau, low, high, p = profile(float(means.var(ddof=1)), variance, len(y) - 1, df)
    expected, most = range_of_noise(len(y), df)
    return Spread(
        len(y),
        float(means.mean()),
        tau,
        low,
        high,
        df,
        p,
        variance**0.5,
        float(means.max() - means.min()),
        expected * variance**0.5,
        most * variance**0.5,
        int(means.argmax()),
        int(means.argmin()),
        found.unknown,
    )


def arms_of(arms: npt.ArrayLike, place: str) -> Array:
    """Checked values (arms, seeds, draws, images) of two arms or more."""
    y = checked(arms, 4, place)
    if len(y) < 2:
        raise EstimateError("one arm alone", place, "give two or more")
    return y


def common_error(y: Array, images: Images) -> tuple[Array, MeanSquares]:
    """Means (A,) of values (A, S, D, I), and the mean squares of one arm's mean about the common one."""
    each = mean_squares(y - y.mean(0), images)
    means = (y[..., images.order] @ images.weights).mean((-2, -1))
    degrees = len(y) - 1
    squares = {name: square.sum() / degrees for name, square in each.squares.items()}
    return means, MeanSquares(means.mean(), squares, {name: df * degrees for name, df in each.df.items()})


def profile(between: float, variance: float, degrees: int, df: float) -> tuple[float, float, float, float]:
    """tau, its interval and p, from the variance of `degrees` + 1 means and that of their errors, which has `df`."""
    from scipy import optimize, stats

    seen = between / variance

    def excess(ratio: float, chance: float) -> float:
        """Chance of less spread than was seen, if tau^2 were `ratio` times the variance, less `chance`."""
        return float(stats.f.cdf(seen / (1 + ratio), degrees, df * (1 + ratio) ** 2)) - chance

    widest = 1 + 10 * seen * degrees / float(stats.chi2.ppf(0.025, degrees))
    low, high = (
        optimize.brentq(excess, 0.0, widest, (chance,)) if excess(0.0, chance) > 0 else 0.0 for chance in (0.975, 0.025)
    )
    tau = max(between - variance, 0.0) ** 0.5
    return tau, (low * variance) ** 0.5, (high * variance) ** 0.5, float(stats.f.sf(seen, degrees, df))


@cache
def _nodes() -> tuple[Array, Array]:
    """Gauss and Legendre's nodes and weights on [-1, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(96)
    return nodes, weights


def range_of_noise(arms: int, df: float) -> tuple[float, float]:
    """Mean and 95 % quantile of the range of so many means whose estimated error, of `df`, is 1.

    P(range < q) = integral of k phi(z) (Phi(z + q s) - Phi(z))^(k - 1) over z, averaged over s = chi / sqrt(df); sums
    over nodes, since scipy's studentized_range takes a third of a second.
    """
    from scipy import optimize, special, stats

    nodes, weights = _nodes()
    z, own = 8.5 * nodes, 8.5 * weights
    below = special.ndtr(z)
    mean = float((own * (1 - below**arms - special.ndtr(-z) ** arms)).sum())
    density = own * arms * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    least, largest = np.log(stats.chi2.ppf(1e-13, df)), np.log(stats.chi2.isf(1e-13, df))
    squares = np.exp(least + (largest - least) * (nodes + 1) / 2)
    chance = weights * stats.chi2.pdf(squares, df) * squares
    s = np.sqrt(squares / df)[:, None]

    def excess(q: float) -> float:
        return float(chance @ ((special.ndtr(z + q * s) - below) ** (arms - 1) @ density) / chance.sum()) - 0.95

    most = 2.0
    while excess(most) < 0:
        most *= 2
    return mean, float(optimize.brentq(excess, 0.0, most))
