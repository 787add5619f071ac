"""The bank of domain knowledge: vectors of docs/specification.md §12.5, and what saving must not change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fozo.engine.model import FloatArray
from fozo.engine.search.bank import (
    Bank,
    compute_change,
    compute_cosines,
    compute_mixture_weights,
    find_most_similar,
    insert,
    remove,
    save,
)

TENSORS = np.array([0, 3, 6])  # three tensors of 3, 3 and 4 values


def array(*values: float) -> FloatArray:
    return np.array(values, np.float32)


def some_bank(entries: int, seed: int = 0, size: float = 0.02) -> Bank:
    generator = np.random.default_rng(seed)

    def normal(*shape: int) -> FloatArray:
        drawn: FloatArray = (size * generator.normal(size=shape)).astype(np.float32)
        return drawn

    return Bank(
        0.2 * generator.normal(size=entries + 1),
        normal(entries, 10),
        normal(10),
        np.triu(generator.uniform(-1, 1, (entries, entries)), 1),
    )


def published() -> Bank:
    """Return the example of §12.5: one entry, one tensor."""
    return Bank(
        np.array([0.2, -0.1]), array(0.02, -0.01, 0.03)[None], array(0.025, -0.03, 0.02), np.zeros((1, 1))
    )


# --- the published example


def test_insertion() -> None:
    larger = insert(published(), np.array([0]))
    assert larger.coefficients[:2].tolist() == [0.2, -0.1]
    assert larger.coefficients[2] == pytest.approx(0.24540524596819066, abs=1e-8)
    np.testing.assert_allclose(
        compute_mixture_weights(larger.coefficients), [0.3810296507, 0.0189703493, 0.6], rtol=0, atol=1e-8
    )


def test_insertion_preserves_the_function() -> None:
    gain = np.array([1, 0.9, 1.1])
    expected = [1.0259485175, 0.8695257413, 1.1214227762]
    before, after = published(), insert(published(), np.array([0]))
    for bank in (before, after):
        np.testing.assert_allclose(gain + compute_change(bank), expected, rtol=0, atol=1e-8)
    np.testing.assert_allclose(after.residual, [0.010, -0.012, 0.008], rtol=0, atol=1e-8)
    np.testing.assert_array_equal(after.entries[1], compute_change(before))


# --- weights


def test_weights_are_a_sharp_softmax() -> None:
    weights = compute_mixture_weights(np.array([0.3, 0.1, -0.2]))
    expected = np.exp([3, 1, -2]) / np.exp([3, 1, -2]).sum()
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    np.testing.assert_allclose(compute_mixture_weights(np.array([1e3, 1e3])), [0.5, 0.5])  # no overflow


def test_change_in_force() -> None:
    bank = some_bank(3)
    weights = compute_mixture_weights(bank.coefficients)
    expected = sum(weights[i + 1] * bank.entries[i].astype(float) for i in range(3)) + bank.residual
    np.testing.assert_allclose(compute_change(bank), expected, rtol=0, atol=1e-8)
    assert compute_change(bank).dtype == np.float32


def test_without_entries_the_residual_is_all_there_is() -> None:
    bank = some_bank(0)
    assert compute_change(bank).tobytes() == bank.residual.tobytes()
    changed = replace(bank, coefficients=bank.coefficients + 3)
    assert compute_change(changed).tobytes() == bank.residual.tobytes()


# --- saving


def largest_mean(bank: Bank) -> float:
    return max(float(np.abs(part).mean()) for part in np.split(bank.residual, TENSORS[1:]))


@pytest.mark.parametrize("entries", [0, 1, 4])
@pytest.mark.parametrize("size", [0.001, 0.05, 3.0])
def test_saving_preserves_the_function(entries: int, size: float) -> None:
    bank = some_bank(entries, size=size)
    larger = insert(bank, TENSORS)
    np.testing.assert_allclose(compute_change(larger), compute_change(bank), rtol=0, atol=1e-6 * size)
    assert larger.entries.shape == (entries + 1, 10) and larger.coefficients.shape == (entries + 2,)
    assert larger.similarity.shape == (entries + 1, entries + 1)


def test_a_large_residual_shrinks_to_the_set_size() -> None:
    """The weight of the new entry is 1 − 1/sf, sf the largest mean absolute residual of a tensor by 0.01."""
    bank = replace(some_bank(2, size=0.05), coefficients=np.array([0.1, -0.2, 0.05]))
    factor = largest_mean(bank) / 0.01
    larger = insert(bank, TENSORS)
    assert factor > 3
    assert compute_mixture_weights(larger.coefficients)[-1] == pytest.approx(1 - 1 / factor, rel=1e-6)
    np.testing.assert_allclose(larger.residual, bank.residual / factor, rtol=0, atol=1e-7)
    assert largest_mean(larger) == pytest.approx(0.01, rel=1e-4)


def test_a_small_residual_gets_the_largest_coefficient_there_is() -> None:
    bank = some_bank(3, size=0.001)
    larger = insert(bank, TENSORS)
    assert largest_mean(bank) < 0.01
    assert larger.coefficients[-1] == bank.coefficients.max()


def test_a_slightly_large_residual_gets_the_largest_coefficient_too() -> None:
    """ln(Σ exp(10 a) (sf − 1)) is below the largest 10 a where sf is only just above 1."""
    bank = replace(some_bank(1), coefficients=np.array([0.4, 0.1]), residual=np.full(10, 0.0101, np.float32))
    assert insert(bank, TENSORS).coefficients[-1] == pytest.approx(0.4, abs=1e-12)


def test_the_largest_mean_is_over_tensors_and_not_over_all_values() -> None:
    residual = np.zeros(10, np.float32)
    residual[3:6] = 0.05
    bank = replace(some_bank(0), coefficients=np.array([0.3]), residual=residual)
    assert compute_mixture_weights(insert(bank, TENSORS).coefficients)[-1] == pytest.approx(1 - 0.01 / 0.05)


@pytest.mark.parametrize(("highest", "expected"), [(20.0, 10.0), (-20.0, -10.0)])
def test_coefficients_are_limited(highest: float, expected: float) -> None:
    bank = replace(some_bank(1, size=0.001), coefficients=np.array([highest, highest - 1]))
    assert insert(bank, TENSORS).coefficients[-1] == expected


def test_saving_nothing() -> None:
    """The first domain may have taught nothing at all."""
    bank = replace(some_bank(0), residual=np.zeros(10, np.float32))
    twice = insert(insert(bank, TENSORS), TENSORS)
    assert not twice.entries.any() and not twice.residual.any() and not twice.similarity.any()
    assert np.isfinite(twice.coefficients).all()


def test_nothing_that_is_passed_in_is_changed() -> None:
    bank = some_bank(3)
    for name in ("coefficients", "entries", "residual", "similarity"):
        getattr(bank, name).setflags(write=False)
    save(bank, TENSORS, 3, "compacted")
    save(bank, TENSORS, 3, "official")


# --- similarity


def test_cosines_are_means_over_tensors() -> None:
    generator = np.random.default_rng(0)
    entries, change = generator.normal(size=(4, 10)), generator.normal(size=10)
    expected = [
        np.mean(
            [
                a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                for a, b in zip(np.split(entry, [3, 6]), np.split(change, [3, 6]), strict=True)
            ]
        )
        for entry in entries
    ]
    np.testing.assert_allclose(compute_cosines(entries, change, TENSORS), expected, rtol=1e-12)
    np.testing.assert_allclose(compute_cosines(entries * 1e3, change, TENSORS), expected, rtol=1e-12)


def test_a_tensor_without_change_is_similar_to_nothing() -> None:
    change = array(0, 0, 0, 1, 2, 3, 1, 1, 1, 1)
    np.testing.assert_allclose(compute_cosines(change[None], change, TENSORS), [2 / 3], rtol=1e-12)
    assert compute_cosines(np.zeros((1, 10), np.float32), change, TENSORS).tolist() == [0]


def test_the_new_column_holds_the_similarities_to_the_earlier_entries() -> None:
    bank = some_bank(3)
    larger = insert(bank, TENSORS)
    np.testing.assert_array_equal(larger.similarity[:3, :3], bank.similarity)
    np.testing.assert_allclose(
        larger.similarity[:3, 3], compute_cosines(bank.entries, compute_change(bank), TENSORS)
    )
    assert not larger.similarity[3].any()


def test_the_older_of_the_most_similar_pair() -> None:
    similarity = np.zeros((4, 4))
    similarity[0, 1], similarity[0, 3], similarity[1, 2], similarity[2, 3] = 0.1, 0.5, 0.8, 0.3
    for rule in ("compacted", "official"):
        assert find_most_similar(similarity, rule) == 1  # type: ignore[arg-type]
    similarity[0, 3] = 0.8  # of equal ones the first, row by row
    assert find_most_similar(similarity, "compacted") == 0


def test_dissimilar_entries() -> None:
    """The official rule finds the zero in the corner and always names entry 0."""
    similarity = np.triu(np.full((4, 4), -0.5), 1)
    similarity[2, 3] = -0.1
    assert find_most_similar(similarity, "compacted") == 2
    assert find_most_similar(similarity, "official") == 0


def test_a_single_entry_makes_no_pair() -> None:
    assert find_most_similar(np.zeros((1, 1)), "compacted") == 0


# --- removing


@pytest.mark.parametrize("index", [0, 1, 3])
@pytest.mark.parametrize("rule", ["compacted", "official"])
def test_removal_preserves_the_function(index: int, rule: Any) -> None:
    bank = some_bank(4)
    smaller = remove(bank, index, rule)
    np.testing.assert_allclose(compute_change(smaller), compute_change(bank), rtol=0, atol=1e-8)
    kept = [i for i in range(4) if i != index]
    np.testing.assert_array_equal(smaller.entries, bank.entries[kept])
    np.testing.assert_array_equal(smaller.coefficients, bank.coefficients[[0, *(i + 1 for i in kept)]])


def test_removal_takes_row_and_column_out_of_the_matrix() -> None:
    bank = some_bank(4)
    kept = [0, 2, 3]
    np.testing.assert_array_equal(
        remove(bank, 1, "compacted").similarity, bank.similarity[np.ix_(kept, kept)]
    )
    np.testing.assert_array_equal(remove(bank, 1, "official").similarity, bank.similarity)


@pytest.mark.parametrize("rule", ["compacted", "official"])
def test_a_full_bank_stays_full(rule: Any) -> None:
    bank = some_bank(4)
    dropped = find_most_similar(bank.similarity, rule)
    full = save(bank, TENSORS, 4, rule)
    np.testing.assert_allclose(compute_change(full), compute_change(bank), rtol=0, atol=1e-8)
    assert full.entries.shape == (4, 10)
    assert full.similarity.shape == (4, 4)
    np.testing.assert_array_equal(full.entries[:3], np.delete(bank.entries, dropped, axis=0))
    np.testing.assert_array_equal(full.entries[3], compute_change(bank))


def test_compacted_similarities_are_those_of_the_entries() -> None:
    """After any number of removals; the official ones are not."""
    generator = np.random.default_rng(1)
    banks = {rule: some_bank(0) for rule in ("compacted", "official")}
    for _ in range(12):
        learnt = generator.normal(0, 0.05, 10).astype(np.float32)
        banks = {
            rule: save(replace(bank, residual=bank.residual + learnt), TENSORS, 4, rule)  # type: ignore[arg-type]
            for rule, bank in banks.items()
        }
    agree = {}
    for rule, bank in banks.items():
        fresh = np.array([compute_cosines(bank.entries, entry, TENSORS) for entry in bank.entries]).T
        agree[rule] = np.allclose(bank.similarity, np.triu(fresh, 1), atol=1e-9)
    assert agree == {"compacted": True, "official": False}


def test_the_bank_is_filled_up_to_its_limit() -> None:
    bank = some_bank(0)
    for count in (1, 2, 3, 3, 3):
        bank = save(bank, TENSORS, 3, "compacted")
        assert len(bank.entries) == len(bank.coefficients) - 1 == count
    assert len(save(bank, TENSORS, 1, "compacted").entries) == 3  # one out, one in
