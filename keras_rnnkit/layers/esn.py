"""The echo state layer."""

from keras_rnnkit.arguments import extends
from keras_rnnkit.cells import ESNCell
from keras_rnnkit.layers.cell_layer import CellLayer, from_cell
from keras_rnnkit.layers.rnn import RNN


@extends(ESNCell, ESNCell, RNN)
class ESN(CellLayer):
    """The echo state layer, a fixed reservoir (Jaeger 2001): `ESNCell` on the loop.

    No weight of it is trained: put a `Dense` layer on top and solve that in closed form
    with `rk.fit_readout`, or train by gradients what is below and above.

    Args:
        units: positive int, the size of the state and of the output. Further arguments
            are those of `ESNCell` and of `RNN`.
        return_sequences: bool, default True, other than in Keras's layers.

    Call arguments, shapes and errors are those of `RNN`.
    """

    cell_class = ESNCell
    cell_name = "esn_cell"
    units = from_cell("units")
    leak_rate = from_cell("leak_rate")
    noise = from_cell("noise")

    def __init__(self, *args, return_sequences=True, **kwargs):
        super().__init__(*args, return_sequences=return_sequences, **kwargs)

    def get_config(self):
        config = super().get_config() | {"units": self.units}
        del config["cell"]
        return config

    @classmethod
    def from_config(cls, config):
        return cls(**config)
