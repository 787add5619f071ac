"""A bank of parameter changes learnt in earlier domains, which are mixed by a softmax.

The change in force is `Σ p_i entry_i + residual`, with `p = softmax(10 · coefficients)`. Coefficient 0 is
that of no change at all, which is not stored and never dropped. Saving moves the change in force into the
bank, removing takes an entry out; neither alters the sum, hence neither alters what the network computes.
From ZOA (ACM MM 2025), official code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from ..model import FloatArray
from ..state import variable_length_array

SHARPNESS = 10.0  # of the softmax over the coefficients
LIMIT = 10.0  # of a new coefficient, either way
RESIDUAL_SIZE = 0.01  # the mean absolute residual that saving leaves, where there was more
Similarity = Literal["compacted", "official"]
Offsets = NDArray[np.intp]


@dataclass(frozen=True)
class Bank:
    """N entries over V parameters, and the residual learnt since the last of them.

    Attributes:
        coefficients: float64 `[1 + N]`; the first is that of no change.
        entries: float32 `[N, V]`, the oldest first.
        residual: float32 `[V]`.
        similarity: float64 `[N, N]`; `[i, j]` with i < j compares entries i and j, the rest is 0.
    """

    coefficients: FloatArray = variable_length_array()
    entries: FloatArray = variable_length_array()
    residual: FloatArray = variable_length_array(axes=0)
    similarity: FloatArray = variable_length_array(axes=2)


def compute_mixture_weights(coefficients: FloatArray) -> FloatArray:
    """Return `softmax(10 · coefficients)`, float64 `[1 + N]`."""
    powers = np.exp(SHARPNESS * (coefficients - coefficients.max()))
    return cast(FloatArray, powers / powers.sum())


def compute_change(bank: Bank) -> FloatArray:
    """Return the change in force, float32 `[V]`."""
    return _mix_entries(bank) + bank.residual


def _mix_entries(bank: Bank) -> FloatArray:
    weights = compute_mixture_weights(bank.coefficients)[1:].astype(np.float32)
    return cast(FloatArray, weights @ bank.entries)


def save(bank: Bank, tensors: Offsets, limit: int, similarity: Similarity) -> Bank:
    """Put the change in force into the bank, after making room where there are `limit` entries already.

    Args:
        bank: the bank before.
        tensors: where each tensor of parameters begins in the V values, ascending, `[T]`.
        limit: entries at most, ≥ 1.
        similarity: see `find_most_similar`.
    """
    if len(bank.entries) >= limit:
        bank = remove(bank, find_most_similar(bank.similarity, similarity), similarity)
    return insert(bank, tensors)


def find_most_similar(similarity: FloatArray, rule: Similarity) -> int:
    """Return the older entry of the most similar pair, the first of several; 0 where there is no pair.

    Args:
        similarity: of a bank, `[N, N]`.
        rule: `compacted`, over pairs only; `official`, over the whole matrix, in which unused places hold 0,
            so that entry 0 is named where all entries are dissimilar.
    """
    pairs = np.triu(np.ones(similarity.shape, bool), 1)
    considered = similarity if rule == "official" else np.where(pairs, similarity, -np.inf)
    return int(np.argmax(considered)) // len(similarity)


def remove(bank: Bank, index: int, similarity: Similarity) -> Bank:
    """Return the bank without entry `index`; the residual makes up for it.

    Args:
        bank: the bank before, with N ≥ 1 entries.
        index: of the entry, in 0..N−1.
        similarity: `compacted` takes its row and column out as well; `official` leaves the matrix as it is,
            so that its rows and columns belong to other entries from then on.
    """
    matrix = bank.similarity
    if similarity == "compacted":
        matrix = np.delete(np.delete(matrix, index, axis=0), index, axis=1)
    smaller = replace(
        bank,
        coefficients=np.delete(bank.coefficients, index + 1),
        entries=np.delete(bank.entries, index, axis=0),
        similarity=matrix,
    )
    return replace(smaller, residual=compute_change(bank) - _mix_entries(smaller))


def insert(bank: Bank, tensors: Offsets) -> Bank:
    """Append the change in force as an entry; the residual shrinks to what the mixture does not give.

    Args:
        bank: the bank before.
        tensors: where each tensor of parameters begins in the V values, ascending, `[T]`.
    """
    change = compute_change(bank)
    larger = replace(
        bank,
        coefficients=np.append(bank.coefficients, _compute_coefficient(bank, tensors)),
        entries=np.concatenate([bank.entries, change[None]]),
        similarity=_append_column(bank.similarity, compute_cosines(bank.entries, change, tensors)),
    )
    return replace(larger, residual=change - _mix_entries(larger))


def _compute_coefficient(bank: Bank, tensors: Offsets) -> float:
    """Return a coefficient that makes the largest mean absolute residual of a tensor 0.01.

    It is at least as large as the coefficients in the bank.
    """
    scaled = SHARPNESS * bank.coefficients
    largest = scaled.max()
    excess = _find_largest_mean(bank.residual, tensors) / RESIDUAL_SIZE - 1
    if excess > 0:
        largest = max(largest, np.log(excess) + largest + np.log(np.exp(scaled - largest).sum()))
    return float(np.clip(largest / SHARPNESS, -LIMIT, LIMIT))


def _find_largest_mean(residual: FloatArray, tensors: Offsets) -> float:
    sizes = np.diff(tensors, append=len(residual))
    return float((np.add.reduceat(np.abs(residual, dtype=np.float64), tensors) / sizes).max())


def compute_cosines(entries: FloatArray, change: FloatArray, tensors: Offsets) -> FloatArray:
    """Return each entry's mean cosine with a change, over tensors: `[N, V]`, `[V]` → float64 `[N]`."""
    exact_change = change.astype(np.float64)
    change_squared = np.add.reduceat(exact_change * exact_change, tensors)
    means = np.zeros(len(entries))
    for index, entry in enumerate(entries.astype(np.float64)):
        norms = np.sqrt(np.add.reduceat(entry * entry, tensors) * change_squared)
        products = np.add.reduceat(entry * exact_change, tensors)
        means[index] = (products / np.maximum(norms, 1e-8)).mean()  # 0 where a tensor is unchanged
    return means


def _append_column(similarity: FloatArray, column: FloatArray) -> FloatArray:
    """Return the matrix with the column of one more entry, in place of an older one if there is any."""
    count = len(column)
    larger = np.zeros((count + 1, count + 1))
    larger[: len(similarity), : len(similarity)] = similarity
    larger[:count, count] = column
    return larger
