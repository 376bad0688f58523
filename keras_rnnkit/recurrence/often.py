"""Whether a shape has been met so often that it pays to compile it."""

import tensorflow as tf

from keras_rnnkit.internals import in_xla
from keras_rnnkit.recurrence.plan import is_on, switched_on
from keras_rnnkit.recurrence.shards import (
    padded_length,
    padded_rows,
    shard_count,
)

nest = tf.nest

# Work is counted in steps of ordinary ops, of so little that what they cost is to be
# started: some 35 microseconds. Products of about this many numbers cost as much again.
PRODUCTS = 1 << 20
# Compiling takes the time of some thousands of these steps. That much has to have run.
ENOUGH = 10_000
# A shape that most calls have had is likely to come again: the third call compiles it,
# or the first one if a call is as much work as this.
TIMES, LARGE = 3, 256
ENDLESS = 1 << 40
KNOWN_AT_ONCE = False  # whether a graph that is made for one shape compiles at once


def at_once():
    """Has every shape inside compile when it is first met: rows then give the same, to
    the bit, whatever came before."""
    return switched_on("at_once")


def is_often(x, products, others=(), trains=False) -> tf.Tensor | None:
    """Whether the shape of a call, as it would be compiled, has been met often.

    It is counted while the graph runs, in a table of its own that lives and dies with
    the graph. What has been often once stays so. The same calls in the same order give
    the same answers.

    Args:
        x: `(batch, time, ...)`.
        products: the numbers that each row multiplies at each step.
        others: nest of tensors `(batch, ...)`, whose sizes count too.
        trains: whether gradients will be asked for. A graph that is made for one shape
            then compiles at once, as to choose would slow each of its steps.

    Returns:
        A bool tensor; `None` for yes, wherever this is known before the graph runs.
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
    keys = tf.stack([0, shape])  # of all calls, and of those of this shape
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
    """Whether a graph of one shape has been called so often that it compiles.

    That this costs a compiled call nothing to speak of, it then only reads the count.
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
    """Calls one of two functions, the first of them if `often` is None."""
    return compiled() if often is None else tf.cond(often, compiled, ordinary)


def both_ways(*functions):
    """Functions that are traced once: in ordinary ops, and as XLA compiles them."""
    traced = [tf.function(each, autograph=False) for each in functions]
    return list(map(ordinary_function, traced)), list(map(compiled_function, traced))


def ordinary_function(function):
    """A function that runs as it is, and stands apart: inline, every op of it would be
    passed over wherever the compiled one runs."""
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
    """How many numbers nests of tensors hold, by their sizes from axis `first` on."""
    total = 0
    for value in filter(tf.is_tensor, nest.flatten(values)):
        known = value.shape[first:].num_elements()
        total += tf.reduce_prod(tf.shape(value)[first:]) if known is None else known
    return total


def _float(number):
    return tf.cast(number, tf.float32) if tf.is_tensor(number) else number
