"""The echo state layer."""

from keras_rnnkit.arguments import extends
from keras_rnnkit.cells import ESNCell
from keras_rnnkit.layers.cell_layer import CellLayer, from_cell
from keras_rnnkit.layers.rnn import RNN


@extends(ESNCell, ESNCell, RNN)
class ESN(CellLayer):
    """The echo state layer (Jaeger 2001): a fixed reservoir run over a sequence.

    Its weights are not trained: put a `Dense` layer on top and fit that in closed form
    with `rk.fit_readout`, or train the layers below and above by gradients. `ESNCell`
    has the equations.

    Args:
        units: positive int, the size of the state and of the output.
        return_sequences: bool, default True, unlike in Keras's layers. Returns the
            outputs of all steps rather than the last one.

    Call arguments, shapes and errors are those of `RNN`.

    Example:

    ```python
    layer = rk.ESN(100, spectral_radius=0.95, leak_rate=0.3, seed=0)
    y = layer(np.zeros((2, 5, 3)))  # (2, 5, 100)
    ```
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
