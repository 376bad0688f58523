"""How the loops of a model run, and why."""

from dataclasses import dataclass

import keras
import tensorflow as tf
from keras import tree

from keras_rnnkit.internals import all_layers
from keras_rnnkit.recurrence import Plan, Policy


@dataclass(frozen=True)
class Explanation:
    """The result of `explain`, which prints as a table.

    Attributes:
        rows: list of dicts, one for each recurrent layer in the order in which they
            run: `layer`, its name; `kind`, its class; `runs`, "compiled", "ordinary
            ops" or "as Keras does"; `why`, the reason.
    """

    rows: list[dict]

    def __str__(self):
        head = {name: name for name in ("layer", "kind", "runs", "why")}
        lines = [head, *self.rows]
        widths = {name: max(len(line[name]) for line in lines) for name in head}
        return "\n".join(
            "  ".join(line[name].ljust(widths[name]) for name in head).rstrip()
            for line in lines
        )

    __repr__ = __str__


class RecordingPolicy(Policy):
    """Runs loops as by default, and records the plan of each layer."""

    def __init__(self):
        super().__init__(at_once=False)
        self.plans = {}

    def note(self, layer, plan):
        known = self.plans.get(layer)
        # A compiled loop is traced with a second branch for rare shapes.
        if known is None or plan.compiled:
            self.plans[layer] = plan


def explain(
    model: keras.layers.Layer, inputs=None, *, training: bool = False
) -> Explanation:
    """Explains how the loop of each recurrent layer runs in `fit` and `predict`.

    The table tells whether a loop is compiled or runs in ordinary ops, inside any
    `tf.function`, and why. The model is traced once; nothing is computed.

    Example:

    >>> import keras
    >>> import keras_rnnkit as rk
    >>> print(rk.explain(rk.LSTM(8, name="long"), keras.Input((20, 3))))
    layer  kind  runs      why
    long   LSTM  compiled  at its first call or a later one, once that pays

    Args:
        model: a model or a layer.
        inputs: arrays, tensors or `keras.Input`s, for their shapes and types only.
            Default None: the inputs of the model, with any number of rows.
        training: bool, default False. True for `fit`, False for `predict`.

    Returns:
        `Explanation`, which prints as a table.

    Raises:
        ValueError: `inputs` is None and the model was not built from inputs.
    """
    if inputs is None:
        inputs = _inputs_of(model)
    if inputs is None:
        raise ValueError(
            f"`inputs` are needed for `{model.name}`, which was not built from inputs; "
            "received None: pass arrays, or `keras.Input((steps, features))`"
        )
    specs = tree.map_structure(_spec, inputs)
    policy = RecordingPolicy()
    graph = tf.function(lambda x: model(x, training=training), autograph=False)
    with policy.active():
        graph.get_concrete_function(specs)
    return Explanation(
        [_row(layer, plan) for layer, plan in policy.plans.items()]
        + [_keras_row(each) for each in all_layers(model) if _is_keras_layer(each)]
    )


def _inputs_of(model):
    """Returns the inputs that a model was built from, or `None`."""
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        return None
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def _spec(x):
    shape, dtype = getattr(x, "shape", None), getattr(x, "dtype", None)
    if shape is None:
        x = tf.convert_to_tensor(x)
        shape, dtype = x.shape, x.dtype
    return tf.TensorSpec(shape, dtype)


def _row(layer, plan: Plan) -> dict:
    return {
        "layer": layer.name,
        "kind": type(layer).__name__,
        "runs": "compiled" if plan.compiled else "ordinary ops",
        "why": plan.why,
    }


def _is_keras_layer(layer) -> bool:
    return type(layer).__module__.startswith("keras.") and isinstance(
        layer, keras.layers.RNN
    )


def _keras_row(layer) -> dict:
    return {
        "layer": layer.name,
        "kind": f"keras.layers.{type(layer).__name__}",
        "runs": "as Keras does",
        "why": "convert with `rk.from_keras(model)`",
    }
