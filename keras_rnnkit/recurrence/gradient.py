"""Gradients, and `tf.custom_gradient` without its memory leak."""

import weakref

import tensorflow as tf

from keras_rnnkit.internals import take_gradient

LOST = (
    "gradients through `tf.vectorized_map` need `loop='portable'` in the recurrent "
    "layers, or `tf.map_fn` in its place"
)


class Gradients:
    """Makes functions with custom gradients, and owns these gradients.

    In a graph, `tf.custom_gradient` registers the gradient under a name for the life of
    the process, with all that it refers to: graphs, layers, weights. Here the registry
    only has a weak reference to this object, and each graph that uses one of its
    gradients holds the object.
    """

    def __init__(self):
        self._kept = {}

    def custom(self, function):
        """Like `tf.custom_gradient`; `function` takes tensors and returns a tuple."""

        def call(*values):
            results = tf.custom_gradient(_guarded(function))(*values)
            if not tf.executing_eagerly():
                self._take_over(results[0].op)
            return results

        return call

    def of_any_order(self, forward, backward, reference):
        """Makes a function with a custom gradient that can itself be differentiated.

        Args:
            forward: callable `(*values) -> (results, saved)`, tuples or lists.
            backward: callable `(values, saved, d_results) -> d_values`.
            reference: callable `(*values) -> results`, `forward` in ordinary ops, for
                gradients of the gradient.

        Returns:
            A callable `(*values) -> results`.
        """

        @self.custom
        def call(*values):
            results, saved = forward(*unwatched(values))
            count = len(values)

            def gradient(*d_results):
                @self.custom
                def first(*both):
                    values, d_results = both[:count], both[count:]
                    by_values = backward(
                        unwatched(values), unwatched(saved), unwatched(d_results)
                    )

                    def second(*d_gradients):
                        def of_reference():
                            return gradients(
                                lambda: reference(*values), list(values), d_results
                            )

                        return gradients(of_reference, list(both), list(d_gradients))

                    return by_values, second

                return first(*values, *d_results)

            return results, gradient

        return call

    def _take_over(self, op):
        keeper = weakref.ref(self)
        name, gradient = take_gradient(
            op, lambda name: lambda *given: keeper()._kept[name](*given)
        )
        self._kept[name] = gradient
        others = getattr(op.graph, "_keras_rnnkit_gradients", [])
        op.graph._keras_rnnkit_gradients = [*others, self]


def forget_gradients():
    """Drops the gradients of the graph being traced, with all that they refer to, if
    nobody will take them."""
    tf.compat.v1.get_default_graph()._keras_rnnkit_gradients = []


def gradients(function, sources, d_targets):
    """Returns the gradients of `function()` with respect to `sources`, all nests."""
    with tf.GradientTape() as tape:
        tape.watch(tf.nest.flatten(sources))
        targets = tf.nest.flatten(function())
    return tape.gradient(
        targets,
        sources,
        output_gradients=tf.nest.flatten(d_targets),
        unconnected_gradients="zero",
    )


def unwatched(values):
    """Hides tensors from tapes, which would else build a gradient of the loops too."""
    return tf.nest.map_structure(tf.stop_gradient, values)


def _guarded(function):
    """Makes a gradient raise, rather than be zero, where TensorFlow has lost the custom
    one: `tf.vectorized_map` copies operations without it."""

    def guarded(*values):
        results, gradient = function(*values)
        connected = tf.identity_n([*results, *values])[: len(results)]
        return tuple(
            tf.raw_ops.PreventGradient(input=v, message=LOST) for v in connected
        ), gradient

    return guarded
