"""The numbers of `KeyedRandom`, computed in registers: its Philox-4x32-10 words, as uniform and normal numbers.

A draw of n words for a row uses the counters (block, number of the draw, 0, 0) for block 0 to ceil(n / 4) - 1. The
first words of all blocks come first, then the second words of all blocks, and so on; so word number `position` is word
`position // blocks` of block `position % blocks`. Normal numbers take 2 * half words for 2 * half numbers: the radii
from the first half, the angles from the second; the first half of the numbers are cosines, the second half sines.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def philox_words(key, block, draw):
    """The four words of counter (block, draw, 0, 0) under a 64-bit key: Philox-4x32 with ten rounds."""
    # Both halves of a product at once: one wide multiplication, where a high and a low one would be two.
    key = key.to(tl.uint64)
    key_0, key_1 = (key & 0xFFFFFFFF).to(tl.uint32), (key >> 32).to(tl.uint32)
    word_0 = block.to(tl.uint32) + key_0 * 0
    word_1 = word_0 * 0 + draw
    word_1 = word_1.to(tl.uint32)
    word_2, word_3 = word_0 * 0, word_0 * 0
    for _ in tl.static_range(10):
        product_0 = word_0.to(tl.uint64) * 0xD2511F53
        product_1 = word_2.to(tl.uint64) * 0xCD9E8D57
        word_0 = (product_1 >> 32).to(tl.uint32) ^ word_1 ^ key_0
        word_2 = (product_0 >> 32).to(tl.uint32) ^ word_3 ^ key_1
        word_1, word_3 = product_1.to(tl.uint32), product_0.to(tl.uint32)
        key_0 += 0x9E3779B9
        key_1 += 0xBB67AE85
    return word_0, word_1, word_2, word_3


@triton.jit
@no_type_check
def word_of_lane(lane, word_0, word_1, word_2, word_3):
    """Word number `lane`, from 0 to 3."""
    return tl.where(lane < 2, tl.where(lane == 0, word_0, word_1), tl.where(lane == 2, word_2, word_3))


@triton.jit
@no_type_check
def random_word(key, draw, position, num_words):
    """Word `position` of a draw of `num_words` words."""
    blocks = (num_words + 3) // 4
    word_0, word_1, word_2, word_3 = philox_words(key, position % blocks, draw)
    return word_of_lane(position // blocks, word_0, word_1, word_2, word_3)


@triton.jit
@no_type_check
def uniform_number(word):
    """A number in [0, 1) from the upper 24 bits of a word."""
    return (word >> 8).to(tl.float32) * 5.960464477539063e-08


@triton.jit
@no_type_check
def normal_number(key, draw, position, half, HALF_IS_EVEN: tl.constexpr):
    """Normal number `position` of a draw of `2 * half` (or one fewer)."""
    pair = tl.where(position < half, position, position - half)
    if HALF_IS_EVEN:
        # Two whole runs of first words, and two of second ones: a radius and its angle have one counter.
        blocks = half // 2
        word_0, word_1, word_2, word_3 = philox_words(key, pair % blocks, draw)
        radius_word = tl.where(pair < blocks, word_0, word_1)
        angle_word = tl.where(pair < blocks, word_2, word_3)
    else:
        radius_word = random_word(key, draw, pair, 2 * half)
        angle_word = random_word(key, draw, pair + half, 2 * half)
    radius_draw = ((radius_word >> 8) + 1).to(tl.float32) * 5.960464477539063e-08
    angle = (angle_word >> 8).to(tl.float32) * 3.7450702829239286e-07
    radius = tl.sqrt_rn(-2.0 * tl.log(radius_draw))
    return radius * tl.where(position < half, tl.cos(angle), tl.sin(angle))


@triton.jit
@no_type_check
def gumbel_number(word):
    """A Gumbel number from a word. A uniform number of 0 counts as 2^-25, as in the softmax head's samplers."""
    return -tl.log(-tl.log(tl.maximum(uniform_number(word), 2.9802322387695312e-08)))
