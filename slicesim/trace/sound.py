"""A quick look at a block: is all of it sound? Where it is not, ``faults`` says what is wrong, slowly."""

from __future__ import annotations

import numpy as np

from slicesim.compiled import jit

#: Bits of a machine word.
WORD = 64


@jit
def is_sound(ids, scores, experts, may_be_negative):
    """Whether all ids are experts (0 to ``experts`` - 1), none twice in a route, with finite scores.

    ids, scores: [tokens, layers, top_k]. A route without a row is not sound either.
    """
    top_k = ids.shape[2]
    for token in range(ids.shape[0]):
        for layer in range(ids.shape[1]):
            wrong, total, least, seen = False, 0.0, 0.0, np.uint64(0)
            for slot in range(top_k):
                expert, score = ids[token, layer, slot], scores[token, layer, slot]
                wrong |= (expert < 0) | (expert >= experts)
                total += score
                least = min(least, score)
                if experts <= WORD:  # one bit for each expert
                    bit = np.uint64(1) << np.uint64(expert & (WORD - 1))
                    wrong |= seen & bit != 0
                    seen |= bit
                else:
                    for other in range(slot):
                        wrong |= ids[token, layer, other] == expert
            finite = total - total == 0.0
            if wrong or not finite or (least < 0.0 and not may_be_negative):
                return False
    return True
