"""The additive score of every query and every key."""

import tensorflow as tf

from keras_rnnkit.recurrence import (
    RowFunction,
    both_ways,
    elements,
    is_often,
    make_plan,
    pad,
    pad_steps,
    wide,
)

BLOCK_BYTES = 1 << 18  # a share of the cache of a core
TANH = 16  # products take as long


def additive_scores(query, keys, scale, loop="auto"):
    """Returns `v · tanh(q + k)`, `(batch, steps, source)`.

    Of many steps, a compiled loop holds the tanh of one or a few at a time, forwards
    and, made anew, backwards: of all there are batch x steps x source x units.

    Args:
        query: `(batch, steps, units)`.
        keys: `(batch, source, units)`.
        scale: v, `(units,)`.
        loop: whether it is compiled; see `make_plan`.
    """
    batch, steps = query.shape[:2]
    if not make_plan(loop, unroll=False, steps=steps, batch=batch).compiled:
        return at_once(query, keys, scale)
    shape = batch, steps, keys.shape[1]
    often = None
    if loop != "fast":
        often = is_often(query, TANH * elements(keys, 1), keys, trains=True)
    count, _, query = pad_steps(query)
    source, _, keys = pad_steps(keys)
    (scores,) = in_parts([query, keys], [scale], often=often)
    return tf.ensure_shape(scores[:, :count, :source], shape)


def at_once(query, keys, scale):
    return weighed(tf.tanh(query[:, :, None] + keys[:, None]), scale)


def weighed(hidden, scale):
    """`v · hidden`, as a product: XLA adds up along a last axis number by number."""
    flat = tf.reshape(hidden, [-1, scale.shape[0]])
    return tf.reshape(tf.matmul(flat, scale[:, None]), tf.shape(hidden)[:-1])


def forward(rows, shared, given):
    (query, keys), (scale,), _ = rows, shared, given
    steps = tf.shape(query)[1]

    def step(t, scores):
        hidden = tf.tanh(tf.gather(query, t, axis=1)[:, None] + keys)
        return t + 1, scores.write(t, weighed(hidden, scale))

    shape = query.shape[0], keys.shape[1]
    scores = tf.TensorArray(query.dtype, steps, element_shape=shape)
    _, scores = tf.while_loop(lambda t, _: t < steps, step, (0, scores))
    return [tf.transpose(scores.stack(), [1, 0, 2])]


def backward(rows, shared, given, d_results):
    """With e = tanh(q + k) and d its score's gradient: d (1 - e²) v by q and k, d e
    by v.

    It takes some steps of one row at a time: what they are added up from stays close
    to the core.
    """
    (query, keys), (scale,), _, (d_scores,) = rows, shared, given, d_results
    batch, steps, units = tf.unstack(tf.shape(query))
    of_step = tf.shape(keys)[1] * units * query.dtype.size
    size = tf.clip_by_value(BLOCK_BYTES // tf.maximum(of_step, 1), 1, steps)
    each = -(-steps // size)  # blocks of a row
    count = batch * each

    def blocks(x):
        x = pad(x, 1, [0, each * size - steps])
        return tf.reshape(x, [count, size, tf.shape(x)[2]])

    d_scores = tf.ensure_shape(d_scores, [None, None, keys.shape[1]])
    queries, d_scores = blocks(query), blocks(d_scores)

    def run(n, d_query, d_keys, d_scale):
        row = n // each
        hidden = tf.tanh(tf.gather(queries, n)[:, None] + tf.gather(keys, row))
        d = tf.gather(d_scores, n)
        slope = d[..., None] * (1 - hidden * hidden)
        d_query = d_query.write(n, tf.reduce_sum(slope, 1))
        d_keys = d_keys.write(row, d_keys.read(row) + wide(tf.reduce_sum(slope, 0)))
        flat = tf.reshape(hidden, [-1, scale.shape[0]])
        by_scale = tf.matmul(tf.reshape(d, [1, -1]), flat)[0]
        return n + 1, d_query, d_keys, d_scale + wide(by_scale)

    shape = None, query.shape[2]
    d_query = tf.TensorArray(query.dtype, count, element_shape=shape)
    zeros = tf.zeros_like(wide(keys))
    d_keys = tf.TensorArray(zeros.dtype, batch, clear_after_read=False).unstack(zeros)
    d_scale = tf.zeros_like(wide(scale))
    _, d_query, d_keys, d_scale = tf.while_loop(
        lambda n, *_: n < count, run, (0, d_query, d_keys, d_scale)
    )
    d_query = tf.reshape(d_query.stack(), [batch, each * size, query.shape[2]])
    d_query = d_query[:, :steps] * scale
    d_keys = tf.cast(d_keys.stack(), keys.dtype) * scale
    return [d_query, d_keys], [tf.cast(d_scale, scale.dtype)]


def reference(rows, shared, given):
    del given
    return [at_once(*rows, *shared)]


in_parts = RowFunction(*both_ways(forward, backward), reference)
