"""A case in PyTorch, with weights converted from and to Keras's order of gates."""

import numpy as np
from cases import CELLS, Case

from keras_rnnkit.recurrence.shards import available_cores

try:
    import torch
except ImportError:
    torch = None

KINDS = {"SimpleRNN": "RNN", "LSTM": "LSTM", "GRU": "GRU"}
GATES = {"SimpleRNN": [0], "LSTM": [0, 1, 2, 3], "GRU": [1, 0, 2]}


def make(case: Case, data, weights):
    """Builds a case that has no mask, to run on all cores.

    Args:
        data: dict of arrays.
        weights: list of arrays, Keras's three for each layer and direction.

    Returns:
        A callable that runs the case, and one that rearranges its results in Keras's
        order.
    """
    torch.set_num_threads(available_cores())
    cell = CELLS[case.cell]
    gates = GATES[cell.kind]
    module = getattr(torch.nn, KINDS[cell.kind])(
        case.features,
        case.units,
        num_layers=cell.layers,
        bidirectional=cell.directions == 2,
        batch_first=True,
    )
    parameters = list(module.parameters())
    values = [
        torch.from_numpy(weight)
        for chunk in chunks(weights, 3)
        for weight in to_torch(chunk, gates)
    ]
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
    data = {name: torch.from_numpy(value) for name, value in data.items()}

    def predict():
        with torch.no_grad():
            return [module(data["x"])[0].numpy()]

    def train():
        module.zero_grad(set_to_none=True)
        module(data["x"])[0].backward(data["d_y"])
        return [parameter.grad.numpy() for parameter in parameters]

    def to_keras_order(gradients):
        return [g for chunk in chunks(gradients, 4) for g in to_keras(chunk, gates)]

    return (train, to_keras_order) if case.job == "train" else (predict, list)


def to_torch(weights, gates):
    """Converts Keras's kernel, recurrent kernel and bias to PyTorch's four weights."""
    kernel, recurrent_kernel, bias = (reorder(w, gates) for w in weights)
    biases = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
    return [np.ascontiguousarray(w) for w in (kernel.T, recurrent_kernel.T, *biases)]


def to_keras(gradients, gates):
    """Converts PyTorch's four gradients to Keras's three.

    Where Keras has one bias, its gradient is that of PyTorch's first.
    """
    kernel, recurrent_kernel, bias, second = gradients
    bias = np.stack([bias, second]) if len(gates) == 3 else bias
    return [reorder(g, np.argsort(gates)) for g in (kernel.T, recurrent_kernel.T, bias)]


def reorder(weight, gates):
    """Reorders the gates of a weight along its last axis."""
    parts = np.split(weight, len(gates), axis=-1)
    return np.concatenate([parts[gate] for gate in gates], axis=-1)


def chunks(values, size):
    return [values[i : i + size] for i in range(0, len(values), size)]
