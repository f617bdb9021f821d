"""CLIP's loss from its definition, slowly, in numpy and float64: every image beside the caption of every image."""

from __future__ import annotations

import numpy as np
from oracle_core import Floats


def info_nce(images: Floats, texts: Floats, captions: list[str], log_scale: float) -> dict[str, Floats]:
    """Loss, gradients and share of right captions of a batch.

    Args:
        images, texts: float64 (B, embed), of any length: they are brought to unit length here.
        captions: B texts; equal ones are no negatives of each other.
        log_scale: log of the inverse temperature, not clamped.

    Returns:
        "loss", and its gradients by "images" and "texts" (before the normalisation) and by "log_scale".
    """
    n, scale = len(captions), np.exp(log_scale)
    image_length, text_length = (np.linalg.norm(v, axis=1, keepdims=True) for v in (images, texts))
    u, v = images / image_length, texts / text_length
    loss, by_logit = 0.0, np.zeros((n, n))
    logits = scale * u @ v.T
    for i in range(n):
        same = [j for j in range(n) if captions[j] == captions[i]]
        for j in range(n):
            wanted = 1 / len(same) if j in same else 0.0
            to_text = np.exp(logits[i, j]) / sum(np.exp(logits[i, k]) for k in range(n))
            to_image = np.exp(logits[j, i]) / sum(np.exp(logits[k, i]) for k in range(n))
            loss -= wanted * (np.log(to_text) + np.log(to_image)) / (2 * n)
            by_logit[i, j] += (to_text - wanted) / (2 * n)
            by_logit[j, i] += (to_image - wanted) / (2 * n)
    by_u, by_v = scale * by_logit @ v, scale * by_logit.T @ u
    return {
        "loss": np.float64(loss),
        "images": (by_u - u * (u * by_u).sum(1, keepdims=True)) / image_length,
        "texts": (by_v - v * (v * by_v).sum(1, keepdims=True)) / text_length,
        "log_scale": (by_logit * logits).sum(),
    }
