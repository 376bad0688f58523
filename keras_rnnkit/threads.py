"""How many threads NumPy's linear algebra runs on."""

import functools
from contextlib import nullcontext

SMALL = 2e8  # multiplications that one thread does before others are awake


def few_threads(work: float = 0):
    """A context in which small work of linear algebra runs on one thread.

    Beside TensorFlow's threads, those of BLAS wait for each other: 100 ms where the
    product of two matrices takes one. Without `threadpoolctl` nothing changes.

    Args:
        work: the multiplications that are to be done.
    """
    threads = _threads() if work <= SMALL else None
    return threads.limit(limits=1, user_api="blas") if threads else nullcontext()


@functools.cache
def _threads():
    try:
        import scipy.linalg  # noqa: F401  so that its BLAS is found too
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()
