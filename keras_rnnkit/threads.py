"""The number of threads of NumPy's linear algebra."""

import functools
from contextlib import nullcontext

SMALL_WORK = 2e8  # multiplications, below which one thread is the fastest


def few_threads(work: float = 0):
    """Returns a context in which small linear algebra runs on one thread.

    BLAS threads wait for each other while TensorFlow's threads are active: a product of
    1 ms takes 100. Without `threadpoolctl` the context does nothing.

    Args:
        work: the number of multiplications.
    """
    threads = _threads() if work <= SMALL_WORK else None
    return threads.limit(limits=1, user_api="blas") if threads else nullcontext()


@functools.cache
def _threads():
    try:
        import scipy.linalg  # noqa: F401  so that its BLAS is found too
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()
