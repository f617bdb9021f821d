"""Influences the slow and obvious way, in float64 numpy: every formula written out, nothing shared, no shortcuts."""

from __future__ import annotations

import numpy as np


def difference(masks: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Mean with the group minus mean without it, group by group."""
    y = outputs.astype(np.float64)
    return np.stack([y[column].mean(0) - y[~column].mean(0) for column in masks.T.astype(bool)])


def ols(masks: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Minimum-norm least squares with an intercept, its standard errors and residual degrees of freedom."""
    x = masks - masks.mean(0)
    y = outputs.astype(np.float64)
    y = y - y.mean(0)
    inverse = np.linalg.pinv(x)
    values = inverse @ y
    df = len(x) - 1 - np.linalg.matrix_rank(x)
    noise = ((y - x @ values) ** 2).sum(0) / df
    return values, np.sqrt(np.outer((inverse**2).sum(1), noise)), df


def half_differences(masks: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """OLS without intercept of (y - y') / 2 on mask - 1/2, for pairs of neighbouring rows."""
    assert np.all(masks[0::2] + masks[1::2] == 1)
    x = masks[0::2] - 0.5
    y = outputs.astype(np.float64)
    y = (y[0::2] - y[1::2]) / 2
    inverse = np.linalg.pinv(x)
    values = inverse @ y
    df = len(x) - np.linalg.matrix_rank(x)
    noise = ((y - x @ values) ** 2).sum(0) / df
    return values, np.sqrt(np.outer((inverse**2).sum(1), noise)), df


def ridge(masks: np.ndarray, outputs: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Minimiser of |y - mu - M b|^2 + penalty |b|^2, target by target."""
    x = masks - masks.mean(0)
    y = outputs.astype(np.float64)
    y = y - y.mean(0)
    columns = [np.linalg.solve(x.T @ x + p * np.eye(x.shape[1]), x.T @ y[:, j]) for j, p in enumerate(penalty)]
    return np.stack(columns, axis=1)


def ridge_errors(masks: np.ndarray, outputs: np.ndarray, penalty: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sampling errors of `ridge`, and the noise |r|^2 / tr (I - S)^2 they rest on, S the map from y to the fit."""
    m, k = masks.shape
    x = masks - masks.mean(0)
    errors, noises = [], []
    for j, p in enumerate(penalty):
        to_values = np.linalg.solve(x.T @ x + p * np.eye(k), x.T)
        rest = np.eye(m) - np.full((m, m), 1 / m) - x @ to_values
        noises.append(((rest @ outputs[:, j].astype(np.float64)) ** 2).sum() / np.trace(rest @ rest))
        errors.append(np.sqrt(noises[-1] * (to_values**2).sum(1)))
    return np.stack(errors, axis=1), np.array(noises)


def sandwich(to_values: np.ndarray, residual: np.ndarray, clusters: np.ndarray, parameters: float) -> np.ndarray:
    """Errors over clusters of values = to_values @ y, with the factor C / (C - 1) (m - 1) / (m - p) of Stata and
    statsmodels: (groups, targets)."""
    m, names = len(residual), np.unique(clusters)
    total = sum((to_values[:, clusters == c] @ residual[clusters == c]) ** 2 for c in names)
    return np.sqrt(total * len(names) / (len(names) - 1) * (m - 1) / (m - parameters))


def lasso_objective(masks: np.ndarray, outputs: np.ndarray, penalty: np.ndarray, values: np.ndarray) -> np.ndarray:
    """|y - mu - M b|^2 / (2 m) + penalty |b|_1 with the best mu, (targets,)."""
    x = masks - masks.mean(0)
    y = outputs.astype(np.float64)
    y = y - y.mean(0)
    return ((y - x @ values) ** 2).sum(0) / (2 * len(x)) + penalty * np.abs(values).sum(0)


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """q_i = the smallest level at which the step-up procedure rejects test i."""
    ordered = np.sort(p)
    levels = [len(p) * ordered[j] / (j + 1) for j in range(len(p))]
    return np.array(
        [min(1.0, *(level for level, bound in zip(levels, ordered, strict=True) if bound >= one)) for one in p]
    )


def difference_errors(masks: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """sqrt(c ((1 - rho) s^2 + rho T)) for rows with different masks, group by group."""
    m, k = masks.shape
    y = outputs.astype(np.float64)
    ols_errors = ols(masks, outputs)[1]
    x = masks - masks.mean(0)
    noise = ols_errors[0] ** 2 / np.linalg.pinv(x.T @ x)[0, 0]
    correlation = np.corrcoef(masks.T.astype(float))
    constant = np.all(masks.sum(1) == masks[0].sum())
    pairs = (correlation + (1 / (k - 1) if constant else 0))[~np.eye(k, dtype=bool)]
    rho = (m - 1) * (pairs**2).mean()
    found = []
    for column in masks.T.astype(bool):
        ins, outs = y[column], y[~column]
        spread = (((ins - ins.mean(0)) ** 2).sum(0) + ((outs - outs.mean(0)) ** 2).sum(0)) / (m - 2)
        scale = 1 / len(ins) + 1 / len(outs)
        found.append(np.sqrt(scale * (noise + rho * np.maximum(spread - noise, 0))))
    return np.stack(found)


def elastic_net_violation(
    masks: np.ndarray, outputs: np.ndarray, penalty: np.ndarray, l1_ratio: float, values: np.ndarray
) -> np.ndarray:
    """By how much values miss the conditions of the minimiser of |y - mu - M b|^2 / (2 m) + penalty (l1_ratio |b|_1 +
    (1 - l1_ratio) |b|^2 / 2), in units of the penalty's |b|_1 part, (targets,)."""
    x = masks - masks.mean(0)
    y = outputs.astype(np.float64)
    y = y - y.mean(0)
    slope = x.T @ (y - x @ values) / len(x) - penalty * (1 - l1_ratio) * values
    edge = penalty * l1_ratio
    free = np.maximum(np.abs(slope) - edge, 0)
    bound = np.abs(slope - edge * np.sign(values))
    return np.where(values == 0, free, bound).max(0) / edge


def debiased_lasso(
    masks: np.ndarray, outputs: np.ndarray, penalty: np.ndarray, fold: np.ndarray, l1_ratio: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Cross-fitted: mean of the coefficients of the other folds plus the difference of means of what they leave on the
    fold, and its standard error, for masks drawn independently (or of one size: then centred, shrunk by 1 - 1/K)."""
    m, k = masks.shape
    constant = np.all(masks.sum(1) == masks[0].sum())
    shrink = (k - 1) / k if constant else 1.0
    mean, rest = crossfit(masks, outputs, penalty, fold, l1_ratio)
    values, errors = mean + shrink * difference(masks, rest), []
    for column in masks.T.astype(bool):
        ins, outs = rest[column], rest[~column]
        within = ((ins - ins.mean(0)) ** 2).sum(0) + ((outs - outs.mean(0)) ** 2).sum(0)
        errors.append(shrink * np.sqrt((1 / len(ins) + 1 / len(outs)) * within / (m - 2)))
    return values - values.mean(0) if constant else values, np.stack(errors)


def crossfit(
    masks: np.ndarray, outputs: np.ndarray, penalty: np.ndarray, fold: np.ndarray, l1_ratio: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the folds of the coefficients from the other folds, and what those leave on the fold."""
    from sklearn.linear_model import ElasticNet

    y = outputs.astype(np.float64)
    mean, rest = np.zeros((masks.shape[1], y.shape[1])), np.zeros_like(y)
    for i in np.unique(fold):
        train, test = fold != i, fold == i
        for j, one in enumerate(penalty):
            model = ElasticNet(alpha=one, l1_ratio=l1_ratio, tol=1e-12, max_iter=10**6)
            model.fit(masks[train].astype(float), y[train, j])
            mean[:, j] += model.coef_ * test.mean()
            rest[test, j] = y[test, j] - model.predict(masks[test].astype(float))
    return mean, rest


def variance_parts(masks: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variance between models of one mask, and over masks of what is not linear, by weighted regression of means."""
    different, label = np.unique(masks, axis=0, return_inverse=True)
    label = label.reshape(-1)
    size = np.bincount(label)
    y = outputs.astype(np.float64)
    means = np.stack([y[label == u].mean(0) for u in range(len(different))])
    training = ((y - means[label]) ** 2).sum(0) / (len(y) - len(different))
    root = np.sqrt(size)[:, None]
    x = root * np.column_stack([np.ones(len(different)), different])
    hat = x @ np.linalg.pinv(x)
    left = ((root * means - hat @ (root * means)) ** 2).sum(0)
    df = len(different) - np.linalg.matrix_rank(x)
    return training, (left - df * training) / (size * (1 - np.diag(hat))).sum()


def as_units(
    masks: np.ndarray, outputs: np.ndarray, pairs: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Regressors and outputs of independent units, the intercept as the first column, each times the root of its rows;
    those roots; and the masks of the units. Units are means of repeated masks, or half-differences of complements."""
    y = outputs.astype(np.float64)
    x, z, root, kept = [], [], [], []
    seen: set[bytes] = set()
    for mask in masks:
        if mask.tobytes() in seen:
            continue
        same, other = (masks == mask).all(1), (masks != mask).all(1)
        seen |= {mask.tobytes(), (~mask.astype(bool)).astype(masks.dtype).tobytes()} if pairs else {mask.tobytes()}
        rows = np.sqrt(same.sum() + (other.sum() if pairs else 0))
        root.append(rows)
        kept.append(mask.astype(bool))
        if pairs:
            x.append(rows * (mask.astype(float) - 0.5))
            z.append((y[same].sum(0) - y[other].sum(0)) / rows)
        else:
            x.append(rows * np.r_[1.0, mask.astype(float)])
            z.append(rows * y[same].mean(0))
    return np.stack(x), np.stack(z), np.array(root), np.stack(kept)


def hc2(x: np.ndarray, z: np.ndarray, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Errors of least squares (minimum norm in all but the first columns) by HC2, and Bell and McCaffrey's degrees.

    Var = sum_u P_ku^2 e_u^2 / (1 - h_u) with P = (X'X)^+ X', H = XP, e = (I - H) z. With equal variances it is a
    quadratic form B in Gaussian noise, whose degrees of freedom are those of Satterthwaite: (tr B)^2 / tr(B B).

    Args:
        x: (units, columns), z: (units, targets). first: columns of the intercept.
    """
    if first:  # least squares with the intercept: minimum norm concerns the groups alone
        centre = x[:, 0] / (x[:, 0] ** 2).sum()
        inner = x[:, 1:] - np.outer(x[:, 0], centre @ x[:, 1:])
        p = np.linalg.pinv(inner)
        hat = inner @ p + np.outer(x[:, 0], centre)
    else:
        p = np.linalg.pinv(x)
        hat = x @ p
    rest = np.eye(len(x)) - hat
    e = rest @ z
    variance, df = [], []
    for row in p:
        weight = row**2 / np.diag(rest)
        form = rest @ np.diag(weight) @ rest
        variance.append(weight @ e**2)
        df.append(np.trace(form) ** 2 / np.trace(form @ form))
    return np.sqrt(variance), np.array(df)


def welch(kept: np.ndarray, z: np.ndarray, root: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors of each column's difference of means by the spread of its two arms, and Bell and McCaffrey's degrees.

    Units weigh as their rows, whose noise they average: an arm's mean has the variance (sum of rows (mean - arm)^2 /
    (units - 1)) / rows of the arm. Of units of one size it is Welch's, and HC2 of the regression on that column alone.

    Args:
        kept: bool (units, columns). z: (units, targets) means times root, root: (units,) of the rows.
    """
    errors, df = [], []
    for column in kept.T:
        total, above, below = 0.0, 0.0, 0.0
        for arm in (column, ~column):
            rows = (root[arm] ** 2).sum()
            mean = (root[arm, None] * z[arm]).sum(0) / rows
            spread = ((z[arm] - root[arm, None] * mean) ** 2).sum(0) / (arm.sum() - 1)
            total = total + spread / rows
            above += 1 / rows
            below += 1 / rows**2 / (arm.sum() - 1)
        errors.append(np.sqrt(total))
        df.append(above**2 / below)
    return np.stack(errors), np.array(df)
