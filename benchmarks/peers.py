"""The peers of a benchmark: one case in each library, on the same weights and data.

All peers return the same numbers: outputs, or gradients with respect to the weights.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
import with_torch
from cases import CELLS, Case

import keras_rnnkit as rk

tf.get_logger().setLevel("ERROR")  # It warns about many functions of the same name.

OURS, KERAS, XLA, TORCH = "keras_rnnkit", "Keras", "Keras XLA", "PyTorch"


class Peer(NamedTuple):
    """A case in one library.

    Args:
        call: callable without arguments, runs the case and returns arrays.
        to_keras_order: callable, rearranges these arrays in Keras's order.
    """

    call: Callable
    to_keras_order: Callable = list


def peer_names(case: Case) -> list[str]:
    """Returns the names of the peers that can run a case."""
    torch_can = with_torch.torch is not None and not case.masked
    return [OURS, KERAS, XLA] + [TORCH] * torch_can


def build(case: Case, seed: int, only=None) -> dict[str, Peer]:
    """Returns the peers of a case by name, all or those in `only`."""
    data, weights = draw_data(case, seed), draw_weights(case, seed)
    makers = {
        OURS: lambda: in_graph(rk, case, data, weights),
        KERAS: lambda: in_graph(keras.layers, case, data, weights),
        XLA: lambda: in_graph(keras.layers, case, data, weights, xla=True),
        TORCH: lambda: Peer(*with_torch.make(case, data, weights)),
    }
    return {name: makers[name]() for name in only or peer_names(case)}


def draw_data(case: Case, seed: int) -> dict[str, np.ndarray]:
    """Returns sequences, their mask, and the gradient with respect to the outputs."""
    rng = np.random.default_rng(seed)
    width = case.units * CELLS[case.cell].directions
    rows = case.batch, case.time
    data = {"x": rng.standard_normal((*rows, case.features), np.float32)}
    if case.masked:
        lengths = rng.integers(case.time // 2, case.time + 1, case.batch)
        data["mask"] = np.arange(case.time) < lengths[:, None]
    if case.job == "train":
        data["d_y"] = rng.standard_normal((*rows, width), np.float32)
    return data


def draw_weights(case: Case, seed: int) -> list[np.ndarray]:
    """Returns Keras's initial weights with random biases, which start as 0 and 1."""
    keras.utils.set_random_seed(seed)
    layers = make_layers(keras.layers, case)
    weights = [np.array(weight) for layer in layers for weight in layer.get_weights()]
    rng = np.random.default_rng(seed)
    for bias in weights[2::3]:
        bias[:] = rng.normal(0, 0.1, bias.shape)
    return weights


def make_layers(library, case: Case) -> list[keras.Layer]:
    """Returns the built layers of a case from `rk` or `keras.layers`, in order."""
    cell = CELLS[case.cell]
    layers = [
        getattr(library, cell.kind)(case.units, return_sequences=True)
        for _ in range(cell.layers)
    ]
    if cell.directions == 2:
        layers = [library.Bidirectional(layer) for layer in layers]
    if cell.layers > 1 and library is rk:
        layers = [rk.StackedRNN(layers, return_sequences=True)]
    shape = None, case.time, case.features
    for layer in layers:
        layer.build(shape)
        shape = layer.compute_output_shape(shape)
    return layers


def in_graph(library, case: Case, data, weights, xla=False) -> Peer:
    """Traces a case as `fit` and `predict` do: any batch size, static steps."""
    layers, rest = make_layers(library, case), list(weights)
    for layer in layers:
        layer.set_weights([rest.pop(0) for _ in layer.weights])
    variables = [w.value for layer in layers for w in layer.trainable_variables]

    def outputs(data, training):
        y = data["x"]
        for layer in layers:
            y = layer(y, mask=data.get("mask"), training=training)
        return y

    def predict(data):
        return [outputs(data, training=False)]

    def train(data):
        with tf.GradientTape() as tape:
            y = outputs(data, training=True)
        return tape.gradient(y, variables, output_gradients=data["d_y"])

    signature = {
        name: tf.TensorSpec([None, *value.shape[1:]], value.dtype)
        for name, value in data.items()
    }
    run = tf.function(
        train if case.job == "train" else predict,
        input_signature=[signature],
        autograph=False,
        jit_compile=xla or None,
    )
    data = {name: tf.constant(value) for name, value in data.items()}
    return Peer(lambda: [np.asarray(result) for result in run(data)])
