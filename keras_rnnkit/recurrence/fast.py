"""The compiled loop over a whole batch: a shard of it for each core, any length."""

import os

import tensorflow as tf

from keras_rnnkit.recurrence.compiled import CompiledLoop
from keras_rnnkit.recurrence.step import differentiable, gradients, look

nest = tf.nest

MOST_SHARDS = 16
LENGTHS = sorted(m << e for m in (2, 3) for e in range(2, 29))  # 8, 12, 16, 24, ...


class FastLoop:
    """Runs a split cell on compiled loops, with gradients of any order.

    The batch is split into one shard a core, which TensorFlow runs side by side. XLA
    compiles for each shape that it meets: where the number of steps is not known when
    the graph is made, the sequences are padded to one of a few lengths, and the loop
    runs as many steps as there are.

    Args:
        cell: has `project`, `recur` and `pointwise`; see `cells.SplitCell`.
        reverse, return_sequences, zero_output_for_mask: as for `CompiledLoop`.
    """

    def __init__(self, cell, *, reverse, return_sequences, zero_output_for_mask):
        self._cell = cell
        self._reverse = reverse
        self._settings = reverse, return_sequences, zero_output_for_mask
        self._compiled = None
        self._graph_forward = tf.function(self._forward, autograph=False)
        self._graph_backward = tf.function(self._backward, autograph=False)

    def can_run(self, x, states, k, row_k, noise) -> bool:
        """Whether the cell's parts compute from their arguments alone."""
        if self._compiled is None:
            facts = look(self._cell, x, states, k, row_k, noise)
            self._compiled = CompiledLoop(self._cell, facts, *self._settings)
        return self._compiled.step.facts.pure and all(map(differentiable, states))

    def __call__(self, x, states, k, row_k, noise, mask, *, save, reference):
        """Runs the steps, after `can_run`.

        Args:
            x: `(batch, time, ...)`, as `noise` and `mask`.
            states: list of `(batch, ...)`.
            k: dict of what all rows share.
            row_k: dict of what each row has its own of, `(batch, ...)`.
            noise: list of tensors.
            mask: list of one tensor, or of none.
            save: bool, whether gradients will be asked for. If not, they can be had
                all the same, and cost the forward loop once more.
            reference: callable `(x, states, k, row_k) -> (output, states)` that does
                the same in ordinary ops, for derivatives of the gradients.

        Returns:
            `(output, states)`.
        """
        forward, backward = self._forward, self._backward
        if tf.executing_eagerly():  # Side by side, the shards run in a graph alone.
            forward, backward = self._graph_forward, self._graph_backward
        arguments = [x, list(states), k, row_k]
        given = [noise, mask]
        sources = [v for v in nest.flatten(arguments) if differentiable(v)]

        def with_sources(values):
            values = iter(values)
            return nest.map_structure(
                lambda v: next(values) if differentiable(v) else v, arguments
            )

        def unwatched(values):
            """Keeps tapes away: they would build a gradient of the loops as well."""
            return [tf.stop_gradient(value) for value in values]

        @tf.custom_gradient
        def loop(*values):
            arguments = with_sources(unwatched(values))
            output, states, saved = forward(arguments, given, save)

            def gradient(*d_results):
                @tf.custom_gradient
                def first(*both):
                    values, d_results = both[: len(sources)], both[len(sources) :]
                    by_values = backward(
                        with_sources(unwatched(values)),
                        given,
                        nest.map_structure(tf.stop_gradient, saved),
                        unwatched(d_results),
                    )

                    def second(*d_gradients):
                        def of_reference():
                            return gradients(
                                lambda: reference(*with_sources(values)),
                                list(values),
                                list(d_results),
                            )

                        return gradients(of_reference, list(both), list(d_gradients))

                    return by_values, second

                return first(*values, *d_results)

            return (output, *states), gradient

        output, *last = loop(*sources)
        steps = x.shape[1:2] if self._compiled.return_sequences else []
        output.set_shape([x.shape[0], *steps, *output.shape[len(steps) + 1 :]])
        for after, before in zip(last, states, strict=True):
            after.set_shape(before.shape)
        if x.shape[1] is None and not self._compiled.return_sequences:
            output = tf.where(tf.shape(x)[1] > 0, output, tf.zeros_like(output))
        return output, last

    def _forward(self, arguments, given, save):
        (x, states, k, row_k), (noise, mask) = arguments, given
        steps, extra, (x, noise, mask) = self._pad_steps([x, noise, mask])

        def run(x, states, row_k, noise, mask):
            return self._compiled.forward(x, states, k, row_k, noise, mask, steps, save)

        def whole():
            output, last, saved = run(x, states, row_k, noise, mask)
            none = nest.map_structure(lambda v: v[:, :0], saved)
            return output, last, [saved] + [none] * (shard_count() - 1)

        def sharded():
            shards = _shards([x, states, row_k, noise, mask])
            outputs, lasts, saved = zip(*[run(*s) for s in shards], strict=True)
            output, last = _joined(zip(outputs, lasts, strict=True), x)
            return output, last, list(saved)

        output, last, saved = _by_batch(x, whole, sharded)
        if extra is not None and self._compiled.return_sequences:
            output = output[:, :steps]
        return output, last, saved

    def _backward(self, arguments, given, saved, d_results):
        (x, states, k, row_k), (noise, mask) = arguments, given
        d_output, *d_states = d_results
        steps, extra, (x, noise, mask) = self._pad_steps([x, noise, mask])
        if extra is not None and self._compiled.return_sequences:
            d_output = _pad(d_output, 1, [0, extra])
        count = sum(map(differentiable, nest.flatten(k)))

        def run(values, d_results, saved, turn):
            x, states, row_k, noise, mask = values
            d_output, d_states = d_results
            if not nest.flatten(saved):
                _, _, saved = self._compiled.forward(
                    x, states, k, row_k, noise, mask, steps, True
                )
            d_z, d_states, d_weights = self._compiled.backward(
                x, k, row_k, noise, mask, steps, turn, saved, d_output, d_states
            )
            d_x = self._compiled.to_input(x, k, row_k, d_z)
            return [d_x, d_states, d_weights[count:]], d_weights[:count]

        values, d_results = [x, states, row_k, noise, mask], [d_output, d_states]

        def whole():
            return run(values, d_results, saved[0], turn=False)

        def sharded():
            shards = zip(
                _shards(values), _shards(d_results, repeat=False), saved, strict=True
            )
            by_rows, by_k = zip(*[run(*s, turn=True) for s in shards], strict=True)
            return _joined(by_rows, x), [tf.add_n(d) for d in zip(*by_k, strict=True)]

        (d_x, d_states, d_row_k), d_k = _by_batch(x, whole, sharded)
        if extra is not None:
            d_x = d_x[:, extra:] if self._reverse else d_x[:, :steps]
        return [d_x, *d_states, *d_k, *d_row_k]

    def _pad_steps(self, tensors):
        """Returns the number of steps, how many are added, and the padded tensors;
        `None` for the numbers where the graph knows the number of steps."""
        x = tensors[0]
        if x.shape[1] is not None:
            return None, None, tensors
        steps = tf.shape(x)[1]
        extra = tf.reduce_min(tf.where(LENGTHS >= steps, LENGTHS, LENGTHS[-1])) - steps
        widths = [extra, 0] if self._reverse else [0, extra]
        return steps, extra, nest.map_structure(lambda v: _pad(v, 1, widths), tensors)


def shard_count() -> int:
    """One shard for each core that TensorFlow may use."""
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    return min(threads or available_cores(), MOST_SHARDS)


def available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _by_batch(x, whole, sharded):
    """Calls `sharded` if there is more than one row, and more than one core."""
    rows = x.shape[0]
    if shard_count() == 1:
        return whole()
    if rows is not None:
        return sharded() if rows > 1 else whole()
    return tf.cond(tf.shape(x)[0] > 1, sharded, whole)


def _shards(tensors, repeat=True):
    """Splits nests of `(batch, ...)` into shards of equal size, of two rows or more.

    Rows that are missing repeat the last one, which is sure to compute, or else are
    zeros, as their gradients are.
    """
    flat, count = nest.flatten(tensors), shard_count()
    batch = flat[0].shape[0]
    batch = tf.shape(flat[0])[0] if batch is None else batch
    most = tf.maximum if tf.is_tensor(batch) else max
    missing = most(2, -(-batch // count)) * count - batch

    def fill():
        if not repeat:
            return [_pad(v, 0, [0, missing]) for v in flat]
        rows = tf.minimum(tf.range(batch + missing), batch - 1)
        return [tf.gather(v, rows) for v in flat]

    if tf.is_tensor(missing):
        flat = tf.cond(missing > 0, fill, lambda: flat)
    elif missing:
        flat = fill()
    shards = zip(*[tf.split(v, count) for v in flat], strict=True)
    return [nest.pack_sequence_as(tensors, shard) for shard in shards]


def _joined(shards, like):
    """Joins nests of shards to as many rows as `like` has."""
    batch = tf.shape(like)[0] if like.shape[0] is None else like.shape[0]
    return nest.map_structure(lambda *parts: tf.concat(parts, 0)[:batch], *shards)


def _pad(tensor, axis, widths):
    rank = tensor.shape.rank
    return tf.pad(tensor, [widths if i == axis else [0, 0] for i in range(rank)])
