"""float16 and bfloat16 with error feedback: rounding against exact arithmetic, and nothing lost but the last error."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tfleet.wire.halves import CHUNK, LARGEST, Packer, decode, encode

HALVES = ("float16", "bfloat16")
halves = st.sampled_from(HALVES)
anything = arrays.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32))
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
small = st.floats(-1000, 1000, width=32)


def every(dtype):
    """All 65,536 numbers of the type."""
    codes, values = np.arange(1 << 16, dtype=np.uint16), np.empty(1 << 16, np.float32)
    decode(codes, values, dtype)
    return codes, values


FINITE = {dtype: np.unique(values[np.isfinite(values)]) for dtype in HALVES for _, values in [every(dtype)]}


def rounded(values, dtype):
    values = np.asarray(values, np.float32)
    codes, out = np.empty(len(values), np.uint16), np.empty(len(values), np.float32)
    encode(values, codes, np.empty_like(values), dtype)
    decode(codes, out, dtype)
    return out


def nearest(value, dtype):
    """The nearest number of the type, of two as near the one with the even code, by exact arithmetic."""
    known = FINITE[dtype]
    at = int(np.searchsorted(known, np.float32(value)))
    around = known[max(0, at - 1) : at + 1]
    codes = np.empty(len(around), np.uint16)
    encode(around, codes, np.empty_like(around), dtype)
    far = [abs(Fraction(float(near)) - Fraction(float(value))) for near in around]
    best = [i for i in range(len(around)) if far[i] == min(far)]
    return around[min(best, key=lambda i: int(codes[i]) % 2)]


@pytest.mark.parametrize("dtype", HALVES)
def test_each_number_of_the_type_is_itself(dtype):
    codes, values = every(dtype)
    numbers = np.isfinite(values)
    again = np.empty(numbers.sum(), np.uint16)
    encode(values[numbers], again, np.empty(len(again), np.float32), dtype)
    assert (again == codes[numbers]).all()  # zeros with their signs too
    assert LARGEST[dtype] == FINITE[dtype][-1]
    assert len(FINITE["float16"]) == 2 * (31 * 1024) - 1
    assert len(FINITE["bfloat16"]) == 2 * (255 * 128) - 1


def test_float16_is_what_numpy_says_and_bfloat16_the_upper_half_of_float32():
    codes, values = every("float16")
    np.testing.assert_array_equal(values, codes.view(np.float16).astype(np.float32))
    codes, values = every("bfloat16")
    assert values.tobytes() == (codes.astype(np.uint32) << 16).tobytes()


@pytest.mark.parametrize("dtype", HALVES)
def test_what_lies_between_two_numbers_goes_to_the_nearer_and_from_the_middle_to_the_even_one(dtype):
    known = FINITE[dtype]
    low, high = known[:-1].astype(np.float64), known[1:].astype(np.float64)
    middle = ((low + high) / 2).astype(np.float32)  # exact: one bit more
    below, above = np.nextafter(middle, known[:-1]), np.nextafter(middle, known[1:])
    np.testing.assert_array_equal(rounded(below, dtype), known[:-1])
    np.testing.assert_array_equal(rounded(above, dtype), known[1:])
    codes = np.empty(len(middle), np.uint16)
    encode(middle, codes, np.empty_like(middle), dtype)
    assert (codes % 2 == 0).all()
    chosen = rounded(middle, dtype)
    assert ((chosen == known[:-1]) | (chosen == known[1:])).all()


@given(halves, arrays.arrays(np.float32, 20, elements=finite))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_rounding_is_to_nearest_even_and_saturates(dtype, values):
    expected = [nearest(value, dtype) for value in values]
    np.testing.assert_array_equal(rounded(values, dtype), expected)


@pytest.mark.parametrize("dtype", HALVES)
def test_too_large_becomes_the_largest_and_the_rest_is_sent_later(dtype):
    largest = LARGEST[dtype]
    huge = (
        np.array([1.5, -1.5], np.float32) * largest if dtype == "float16" else np.array([3.4e38, -3.4e38], np.float32)
    )
    packer, out = Packer(dtype, 2), np.empty(2, np.float32)
    decode(packer.pack(huge), out, dtype)
    assert out.tolist() == [largest, -largest]
    np.testing.assert_array_equal(packer.residual, huge - out)
    decode(packer.pack(np.zeros(2, np.float32)), out, dtype)
    assert np.sign(out).tolist() == [1, -1]
    assert (np.abs(packer.residual) <= np.abs(huge) * 2.0**-8).all()


@given(halves, st.integers(0, 30), st.data())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_nothing_is_lost_but_the_last_rounding_error(dtype, size, data):
    packer, out = Packer(dtype, size), np.empty(size, np.float32)
    kept = np.zeros(size, np.float32)
    for _ in range(data.draw(st.integers(1, 6))):
        gradient = data.draw(arrays.arrays(np.float32, size, elements=small))
        before = gradient.copy()
        total = gradient + kept
        decode(packer.pack(gradient), out, dtype)
        np.testing.assert_array_equal(gradient, before)
        np.testing.assert_array_equal(out, [nearest(value, dtype) for value in total])
        np.testing.assert_array_equal(out.astype(np.float64) + packer.residual, total)  # exactly
        kept = packer.residual.copy()


@given(halves, st.lists(anything, min_size=1, max_size=4))
@settings(max_examples=120, deadline=None, derandomize=True)
def test_whatever_comes_the_residual_stays_finite_and_only_what_was_not_finite_arrives_so(dtype, gradients):
    size = min(map(len, gradients))
    packer, out = Packer(dtype, size), np.empty(size, np.float32)
    with np.errstate(all="raise"):  # no warning reaches the user
        for gradient in gradients:
            decode(packer.pack(gradient[:size]), out, dtype)
            wrong = ~np.isfinite(gradient[:size])
            np.testing.assert_array_equal(out[wrong], gradient[:size][wrong])  # NaN equals NaN here, infinity by sign
            assert np.isfinite(out[~wrong]).all()
            assert np.isfinite(packer.residual).all()
            assert not packer.residual[wrong].any()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("bits", [0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000])
def test_every_nan_stays_one(dtype, bits):
    packer, out = Packer(dtype, 3), np.empty(3, np.float32)
    gradient = np.array([1, 0, 2], np.float32)
    gradient.view(np.uint32)[1] = bits
    decode(packer.pack(gradient), out, dtype)
    assert np.isnan(out).tolist() == [False, True, False]
    assert packer.residual.tolist() == [0, 0, 0]


@pytest.mark.parametrize("dtype", HALVES)
def test_two_finite_numbers_whose_sum_is_not_saturate(dtype):
    packer, out = Packer(dtype, 1), np.empty(1, np.float32)
    for _ in range(3):
        decode(packer.pack(np.array([np.finfo(np.float32).max])), out, dtype)
        assert out.tolist() == [LARGEST[dtype]]
        assert np.isfinite(packer.residual).all()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_chunks_are_packed_like_one_by_one(dtype, size):
    generator = np.random.default_rng(size)
    packer, out = Packer(dtype, size), np.empty(size, np.float32)
    kept = np.zeros(size, np.float32)
    for _ in range(3):
        gradient = generator.normal(size=size).astype(np.float32)
        if size > CHUNK:
            gradient[CHUNK] = np.inf  # one chunk needs care, the others do not
        decode(packer.pack(gradient), out, dtype)
        rest = np.arange(size) != CHUNK
        np.testing.assert_array_equal(out[rest], rounded((gradient + kept)[rest], dtype))
        kept = packer.residual.copy()
    assert np.abs(kept).max(initial=0) < 0.05


@pytest.mark.parametrize("dtype", HALVES)
def test_gradients_too_small_for_the_type_arrive_in_the_end(dtype):
    packer, out, sent = Packer(dtype, 1), np.empty(1, np.float32), 0.0
    tiny = np.array([1e-9 if dtype == "float16" else 1e-3], np.float32)
    big = np.array([0 if dtype == "float16" else 1], np.float32)
    for _ in range(1000):
        decode(packer.pack(tiny + big), out, dtype)
        sent += float(out[0]) - float(big[0])
    assert sent == pytest.approx(1000 * float((tiny + big)[0] - big[0]), abs=2.0**-8 if big[0] else 2.0**-24)
    packer.reset()
    assert not packer.residual.any()


def test_all_memory_is_taken_once():
    packer = Packer("bfloat16", 10)
    first = packer.pack(np.ones(10, np.float32))
    assert packer.pack(np.zeros(10, np.float32)) is first
