"""Rounding of weights in which each row makes up for the errors of the rows before it, in closed form.

Rounding every weight to its nearest integer makes the error of a weight small, not that of a product. Here
the squared error of the product counts, over calibration images: ‖x W − r Q − c‖², with input x, its rounded
form r and integer weights Q.

1. Without integers, the best weight is V = W + (R + λ I)⁻¹ (C − R) W with the covariances R of r with itself
   and C of r with x: least squares, with a ridge λ that pulls towards W. It makes up for the rounding of x.
2. V is rounded row by row, as in GPTQ (Frantar et al., ICLR 2023, eq. 2 and algorithm 1): with U the upper
   Cholesky factor of (R + λ I)⁻¹, the error e of row k, divided by U_kk, changes the rows l > k by −U_kl e.
   The rows of the largest variance come first.
3. The remaining difference of the means goes into the bias, c = E[x] W − E[r] Q.

No step needs a gradient.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..engine.model import FloatArray
from .clip_search import search_weight_scales
from .grid import find_largest
from .input_moments import InputMoments
from .weight_blocks import LARGEST, SMALLEST, repeat_scales, search_block_scales

RIDGE = 0.01  # of the mean variance
BLOCK = 128  # rows whose effect on later blocks is added at once


def compensate_errors(
    weight: FloatArray, moments: InputMoments, bits: int, *, blocks: bool = False
) -> tuple[NDArray[np.int8], FloatArray, FloatArray]:
    """Return integers of a weight that compensate errors.

    Args:
        weight: float32 `[K, M]`.
        moments: of its input.
        bits: of an integer.
        blocks: whether blocks of rows have scales of their own.

    Returns:
        The integers int8 `[K, M]`; the scales of the columns float32 `[M]`, or of the blocks `[B, M]`; and
        what the bias has to add, float32 `[M]`.
    """
    exact = weight.astype(np.float64)
    ridge = RIDGE * max(float(np.diag(moments.gram).mean()), float(np.finfo(np.float32).tiny))
    hessian = moments.gram + ridge * np.eye(len(weight))
    best = exact + np.linalg.solve(hessian, (moments.cross - moments.gram) @ exact)
    if blocks:
        scale, limits = search_block_scales(best), (SMALLEST, LARGEST)
        scales = repeat_scales(scale, len(weight))
    else:
        scale, limits = search_weight_scales(best, bits), (-find_largest(bits), find_largest(bits))
        scales = np.broadcast_to(scale, weight.shape)
    integers = round_rows(best, hessian, scales, limits)
    bias = moments.mean @ exact - moments.rounded_mean @ (integers * scales.astype(np.float64))
    return integers, scale, bias.astype(np.float32)


def round_rows(
    weight: FloatArray, hessian: FloatArray, scales: FloatArray, limits: tuple[int, int]
) -> NDArray[np.int8]:
    """Round a weight `[K, M]` row by row, and change later rows to make up for the errors of earlier ones.

    Args:
        weight: float64 `[K, M]`.
        hessian: symmetric and positive definite, `[K, K]`.
        scales: of the weights, `[K, M]`.
        limits: the smallest and largest integer.
    """
    order = np.argsort(-np.diag(hessian), kind="stable")
    rows = weight[order].copy()
    factor = np.linalg.cholesky(np.linalg.inv(hessian[np.ix_(order, order)])).T
    integers = np.empty(rows.shape, np.int8)
    for start in range(0, len(rows), BLOCK):
        stop = min(start + BLOCK, len(rows))
        errors = np.empty_like(rows[start:stop])
        for k in range(start, stop):
            scale = scales[order[k]]
            rounded = np.clip(np.rint(rows[k] / scale), *limits)
            integers[order[k]] = rounded
            errors[k - start] = (rows[k] - rounded * scale) / factor[k, k]
            rows[k + 1 : stop] -= np.outer(factor[k, k + 1 : stop], errors[k - start])
        rows[stop:] -= factor[start:stop, stop:].T @ errors
    return integers
