"""The additive score of every query with every key."""

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

BLOCK_BYTES = 1 << 18  # fits in part of a core's cache
TANH_COST = 16  # in multiplications


def additive_scores(query, keys, scale, loop="auto"):
    """Returns `v · tanh(q + k)`, `(batch, steps, source)`.

    The tanh of all steps has batch x steps x source x units elements. When there are
    many steps, a compiled loop holds that of a few at a time, and recomputes it in the
    backward pass.

    Args:
        query: `(batch, steps, units)`.
        keys: `(batch, source, units)`.
        scale: v, `(units,)`.
        loop: str, whether to compile; see `make_plan`.
    """
    batch, steps = query.shape[:2]
    if not make_plan(loop, unroll=False, steps=steps, batch=batch).compiled:
        return broadcast_scores(query, keys, scale)
    shape = batch, steps, keys.shape[1]
    often = None
    if loop != "fast":
        often = is_often(query, TANH_COST * elements(keys, 1), keys, trains=True)
    count, _, query = pad_steps(query)
    source, _, keys = pad_steps(keys)
    (scores,) = compiled_scores([query, keys], [scale], often=often)
    return tf.ensure_shape(scores[:, :count, :source], shape)


def broadcast_scores(query, keys, scale):
    """The scores of all pairs of a query and a key at the same time."""
    return project_to_scores(tf.tanh(query[:, :, None] + keys[:, None]), scale)


def project_to_scores(hidden, scale):
    """`v · hidden`, as a matrix product: XLA reduces a last axis element by element."""
    flat = tf.reshape(hidden, [-1, scale.shape[0]])
    return tf.reshape(tf.matmul(flat, scale[:, None]), tf.shape(hidden)[:-1])


def forward(rows, shared, given):
    (query, keys), (scale,), _ = rows, shared, given
    steps = tf.shape(query)[1]

    def step(t, scores):
        hidden = tf.tanh(tf.gather(query, t, axis=1)[:, None] + keys)
        return t + 1, scores.write(t, project_to_scores(hidden, scale))

    shape = query.shape[0], keys.shape[1]
    scores = tf.TensorArray(query.dtype, steps, element_shape=shape)
    _, scores = tf.while_loop(lambda t, _: t < steps, step, (0, scores))
    return [tf.transpose(scores.stack(), [1, 0, 2])]


def backward(rows, shared, given, d_results):
    """The gradients d (1 - e²) v with respect to q and k, and d e with respect to v.

    Here e = tanh(q + k), and d is the gradient with respect to the score. Each turn
    handles a block of steps of one row, so that its terms stay in the cache.
    """
    (query, keys), (scale,), _, (d_scores,) = rows, shared, given, d_results
    batch, steps, units = tf.unstack(tf.shape(query))
    step_bytes = tf.shape(keys)[1] * units * query.dtype.size
    size = tf.clip_by_value(BLOCK_BYTES // tf.maximum(step_bytes, 1), 1, steps)
    per_row = -(-steps // size)  # blocks
    count = batch * per_row

    def blocks(x):
        x = pad(x, 1, [0, per_row * size - steps])
        return tf.reshape(x, [count, size, tf.shape(x)[2]])

    d_scores = tf.ensure_shape(d_scores, [None, None, keys.shape[1]])
    queries, d_scores = blocks(query), blocks(d_scores)

    def run(n, d_query, d_keys, d_scale):
        row = n // per_row
        hidden = tf.tanh(tf.gather(queries, n)[:, None] + tf.gather(keys, row))
        d = tf.gather(d_scores, n)
        slope = d[..., None] * (1 - hidden * hidden)
        d_query = d_query.write(n, tf.reduce_sum(slope, 1))
        d_keys = d_keys.write(row, d_keys.read(row) + wide(tf.reduce_sum(slope, 0)))
        flat = tf.reshape(hidden, [-1, scale.shape[0]])
        d_block_scale = tf.matmul(tf.reshape(d, [1, -1]), flat)[0]
        return n + 1, d_query, d_keys, d_scale + wide(d_block_scale)

    shape = None, query.shape[2]
    d_query = tf.TensorArray(query.dtype, count, element_shape=shape)
    zeros = tf.zeros_like(wide(keys))
    d_keys = tf.TensorArray(zeros.dtype, batch, clear_after_read=False).unstack(zeros)
    d_scale = tf.zeros_like(wide(scale))
    _, d_query, d_keys, d_scale = tf.while_loop(
        lambda n, *_: n < count, run, (0, d_query, d_keys, d_scale)
    )
    d_query = tf.reshape(d_query.stack(), [batch, per_row * size, query.shape[2]])
    d_query = d_query[:, :steps] * scale
    d_keys = tf.cast(d_keys.stack(), keys.dtype) * scale
    return [d_query, d_keys], [tf.cast(d_scale, scale.dtype)]


def reference(rows, shared, given):
    del given
    return [broadcast_scores(*rows, *shared)]


compiled_scores = RowFunction(*both_ways(forward, backward), reference)
