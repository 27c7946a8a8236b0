"""How much of a label is its own: the others that look at the same bars share in it."""

from collections.abc import Callable

import numpy as np

from ktrdr.labels.base import FloatArray, IntArray


def uniqueness(starts: IntArray, ends: IntArray, check: Callable[[], None]) -> FloatArray:
    """Return the average uniqueness of each label, scaled to 1 on average.

    Label i rests on what happens from bar ``starts[i]`` until bar ``ends[i]``. In each of these steps it
    shares with all labels that rest on it too; its weight is the mean of its shares.

    Args:
        starts: bars of the labels, increasing.
        ends: bars at which they are known, each after its start.
        check: called at least every 50 ms of work.

    Source: M. López de Prado, Advances in Financial Machine Learning (2018), sections 4.3-4.4.
    """
    steps = int(ends.max()) + 1
    begun = np.bincount(starts, minlength=steps)
    ended = np.bincount(ends, minlength=steps)
    sharing = np.cumsum(begun - ended)
    check()
    shares = np.divide(1.0, sharing, out=np.zeros(steps), where=sharing > 0)
    before = np.concatenate(([0.0], np.cumsum(shares)))  # sum of the shares of all earlier steps
    check()
    means: FloatArray = (before[ends] - before[starts]) / (ends - starts)
    means /= means.mean()
    return means
