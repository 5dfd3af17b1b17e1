"""Counters: golden values, so that no view can change in silence, and the quality of the draws."""

import numpy as np
import pytest

from lauter.data.counters import derive_seed, draw_order, draw_uniforms, hash_counters

MASK = 2**64 - 1


def split_mix(*counters: int) -> int:
    """The hash in plain Python integers, from the definition of SplitMix64."""
    state = 0
    for counter in counters:
        z = ((state ^ (counter & MASK)) + 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        state = z ^ (z >> 31)
    return state


def test_one_counter_gives_the_published_outputs_of_splitmix64() -> None:
    # Outputs 1 to 5 for seed 1234567, as public implementations of SplitMix64 list them.
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    states = [(1234567 + k * 0x9E3779B97F4A7C15) & MASK for k in range(5)]
    signed = [state - 2**64 if state >= 2**63 else state for state in states]
    assert [int(hash_counters(state)[0]) for state in signed] == published


def test_several_counters_are_hashed_one_after_the_other() -> None:
    index = [0, 1, 2**40, -1]
    found = hash_counters(5, index, 7)
    assert found.tolist() == [split_mix(5, i, 7) for i in index]
    # Golden: these numbers decide every view of every run.
    assert found.tolist() == [
        16375629617440918755,
        2569182171174244380,
        6229686540126119386,
        10377886341384944228,
    ]


def test_uniforms_are_the_top_53_bits_of_the_hash() -> None:
    index = np.array([0, 123456789])
    found = draw_uniforms(42, index, 3, 3)
    expected = [[(split_mix(42, int(i), 3, c) >> 11) / 2**53 for c in range(3)] for i in index]
    np.testing.assert_array_equal(found, expected)
    golden = [
        [0.014629683847107389, 0.16878417044664384, 0.23857110828173866],
        [0.160541297207747, 0.6818378555847401, 0.5904888555442165],
    ]
    np.testing.assert_array_equal(found, golden)


def test_orders_and_seeds_are_golden() -> None:
    assert draw_order(3, 10, 2).tolist() == [6, 0, 5, 7, 9, 8, 4, 3, 2, 1]
    assert draw_order(3, 10, 0).tolist() == [1, 0, 7, 2, 6, 5, 9, 3, 8, 4]
    assert derive_seed(0, "pretrain", 3) == 2701808358806144043
    assert derive_seed(7, "x") == 46897268665467222


def test_a_seed_keeps_its_parts_apart() -> None:
    assert derive_seed("ab", "c") != derive_seed("a", "bc")
    assert derive_seed(1, 23) != derive_seed(12, 3)
    assert all(0 <= derive_seed(part) < 2**63 for part in range(1000))


def test_an_order_is_a_permutation_of_its_own() -> None:
    orders = [draw_order(seed, 500, epoch) for seed in range(3) for epoch in range(3)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(500))
    assert len({order.tobytes() for order in orders}) == len(orders)


def test_more_columns_leave_the_first_ones_as_they_were() -> None:
    index = np.arange(50)
    np.testing.assert_array_equal(draw_uniforms(1, index, 2, 16)[:, :5], draw_uniforms(1, index, 2, 5))


@pytest.mark.parametrize(("seed", "view"), [(0, 0), (0, 1), (1, 0), (2**62, 10**6)])
def test_draws_are_uniform_and_columns_uncorrelated(seed: int, view: int) -> None:
    count, bins, columns = 20_000, 10, 16
    draws = draw_uniforms(seed, np.arange(count), view, columns)
    assert draws.min() >= 0
    assert draws.max() < 1
    # Binomial: each of 160 cells within five standard deviations.
    share = 1 / bins
    allowed = 5 * np.sqrt(count * share * (1 - share))
    for column in range(columns):
        cells = np.histogram(draws[:, column], bins, (0, 1))[0]
        assert np.abs(cells - count * share).max() < allowed
    correlation = np.corrcoef(draws, rowvar=False) - np.eye(columns)
    assert np.abs(correlation).max() < 5 / np.sqrt(count)


def test_neighbours_in_index_view_and_seed_are_uncorrelated() -> None:
    count = 20_000
    index = np.arange(count)
    base = draw_uniforms(0, index, 0, 1)[:, 0]
    others = {
        "index": draw_uniforms(0, index + 1, 0, 1)[:, 0],
        "view": draw_uniforms(0, index, 1, 1)[:, 0],
        "seed": draw_uniforms(1, index, 0, 1)[:, 0],
        "column": draw_uniforms(0, index, 0, 2)[:, 1],
    }
    for name, other in others.items():
        assert abs(np.corrcoef(base, other)[0, 1]) < 5 / np.sqrt(count), name


def test_every_bit_of_a_counter_flips_about_half_of_the_hash() -> None:
    index = np.arange(2000)
    for bit in range(0, 63, 7):
        changed = hash_counters(9, index) ^ hash_counters(9, index ^ (1 << bit))
        flipped = np.unpackbits(changed.view(np.uint8)).mean()
        assert abs(flipped - 0.5) < 5 * 0.5 / np.sqrt(64 * len(index)), bit
