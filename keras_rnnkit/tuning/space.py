"""The recurrent part of a model as a search space."""

import keras

from keras_rnnkit import layers

CELLS = {"LSTM": layers.LSTM, "GRU": layers.GRU, "SimpleRNN": layers.SimpleRNN}


def recurrent_stack(
    hp,
    *,
    cells: tuple[str, ...] = ("LSTM", "GRU", "SimpleRNN"),
    units: tuple[int, ...] = (32, 64, 128),
    depths: tuple[int, ...] = (1, 2),
    directions: tuple[str, ...] = ("forward", "both"),
    dropouts: tuple[float, ...] = (0.0, 0.2, 0.4),
    return_sequences: bool = False,
) -> keras.layers.Layer:
    """Returns a recurrent layer drawn from a search space.

    Asks `hp` for `cell`, `units`, `depth`, `direction` and `dropout`, of the inputs of
    every layer; an argument of one value fixes that choice.

    Args:
        hp: `keras_tuner.HyperParameters`.
        cells: names of layers among "LSTM", "GRU" and "SimpleRNN".
        units: sizes of a layer, for each direction.
        depths: numbers of layers.
        directions: among "forward" and "both".
        dropouts: rates in [0, 1).
        return_sequences: bool, whether the layer returns its whole sequence.
    """
    cell = CELLS[hp.Choice("cell", list(cells))]
    size = hp.Choice("units", list(units))
    depth = hp.Choice("depth", list(depths))
    direction = hp.Choice("direction", list(directions))
    dropout = hp.Choice("dropout", list(dropouts))
    chain = [cell(size, dropout=dropout) for _ in range(depth)]
    if direction == "both":
        chain = [layers.Bidirectional(layer) for layer in chain]
    return layers.StackedRNN(chain, return_sequences=return_sequences)
