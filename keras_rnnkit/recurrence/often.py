"""When a shape has been met often enough to compile it."""

import tensorflow as tf

from keras_rnnkit.internals import in_xla
from keras_rnnkit.recurrence.plan import is_on, switched_on
from keras_rnnkit.recurrence.shards import (
    padded_length,
    padded_rows,
    shard_count,
)

nest = tf.nest

# The unit of work is a step of a very small cell in ordinary ops: some 35 microseconds,
# nearly all of it overhead. This many multiplications take as long again.
PRODUCTS = 1 << 20
# Compiling takes as long as some thousands of these steps: so much has to run first.
ENOUGH = 10_000
# A shape that most calls have had is likely to come again: the third call compiles it,
# or the first if a call is at least as much work as LARGE.
TIMES, LARGE = 3, 256
ENDLESS = 1 << 40
KNOWN_AT_ONCE = False  # whether a graph for a single shape compiles at its first call


def at_once():
    """A context manager: every shape inside compiles when it is first met. Results are
    then the same to the bit, whatever ran before."""
    return switched_on("at_once")


def is_often(x, products, others=(), trains=False) -> tf.Tensor | None:
    """Whether the (padded) shape of a call has been met often enough to compile it.

    The graph counts its calls while it runs, in a table that it owns. Once a shape has
    been met often, that stays so. The same calls in the same order give the same
    answers.

    Args:
        x: `(batch, time, ...)`.
        products: number of multiplications for each row and step.
        others: nest of tensors `(batch, ...)`, whose sizes count too.
        trains: whether gradients will be asked for. A graph for a single shape then
            compiles at once, as the choice would slow every training step.

    Returns:
        A bool tensor, or `None` for yes if that is known before the graph runs.
    """
    if in_xla() or is_on("at_once"):
        return None
    known, count = x.shape[0], shard_count()
    rows = known
    if rows is None:  # One row is padded to no more.
        rows = tf.shape(x)[0]
        rows = tf.where(rows == 1, 1, padded_rows(rows, count))
    steps = padded_length(tf.shape(x)[1]) if x.shape[1] is None else x.shape[1]
    sizes = [n for n in (rows, steps) if tf.is_tensor(n)]
    for tensor in nest.flatten(others):
        unknown = [axis for axis, n in enumerate(tensor.shape) if axis and n is None]
        sizes += [padded_length(tf.shape(tensor)[axis]) for axis in unknown]
    work = _float(steps) * (1 + _float(rows) * _float(products) / PRODUCTS)
    if not sizes and (trains or KNOWN_AT_ONCE or work >= LARGE):
        return None
    table = tf.raw_ops.MutableHashTableV2(key_dtype=tf.int64, value_dtype=tf.int64)
    if not sizes:
        return _is_third_call(table)
    shape = tf.constant(1, tf.int64)
    for size in sizes:
        shape = shape * 1_000_003 + tf.cast(size, tf.int64)
    keys = tf.stack([0, shape])  # all calls, and those of this shape
    zero = tf.constant(0, tf.int64)
    counts = 1 + tf.raw_ops.LookupTableFindV2(
        table_handle=table, keys=keys, default_value=zero
    )
    calls, met = tf.unstack(counts)
    often = (_float(met) * work >= ENOUGH) | (
        (2 * met > calls) & ((met >= TIMES) | (work >= LARGE))
    )
    counts = tf.stack([calls, tf.where(often, tf.constant(ENDLESS, tf.int64), met)])
    counted = tf.raw_ops.LookupTableInsertV2(
        table_handle=table, keys=keys, values=counts
    )
    with tf.control_dependencies([counted]):
        return tf.identity(often)


def _is_third_call(table):
    """Whether this is at least the third call of a graph for a single shape.

    Later calls only read the count, which costs them next to nothing.
    """
    zero = tf.constant(0, tf.int64)
    called = tf.raw_ops.LookupTableFindV2(
        table_handle=table, keys=zero, default_value=zero
    )
    often = called >= TIMES - 1

    def count():
        return tf.raw_ops.LookupTableInsertV2(
            table_handle=table, keys=zero, values=called + 1
        )

    tf.cond(often, tf.no_op, count)
    return often


def if_often(often, compiled, ordinary):
    """Calls one of two functions: `compiled` if `often` is True or `None`."""
    return compiled() if often is None else tf.cond(often, compiled, ordinary)


def both_ways(*functions):
    """Traces functions once, to run in ordinary ops and to be compiled by XLA.

    Returns:
        Two lists: `ordinary_function` and `compiled_function` of each.
    """
    traced = [tf.function(each, autograph=False) for each in functions]
    return list(map(ordinary_function, traced)), list(map(compiled_function, traced))


def ordinary_function(function):
    """A function in ordinary ops, not inlined: else the graph would have to skip every
    op of it whenever the compiled function runs."""
    return tf.function(
        lambda *values: function(*values),
        autograph=False,
        experimental_attributes={"_noinline": True},
    )


def compiled_function(function):
    """A function that XLA compiles."""
    return tf.function(
        lambda *values: function(*values), autograph=False, jit_compile=True
    )


def elements(values, first=0):
    """Returns how many numbers nests of tensors hold, from axis `first` on."""
    total = 0
    for value in filter(tf.is_tensor, nest.flatten(values)):
        known = value.shape[first:].num_elements()
        total += tf.reduce_prod(tf.shape(value)[first:]) if known is None else known
    return total


def _float(number):
    return tf.cast(number, tf.float32) if tf.is_tensor(number) else number
