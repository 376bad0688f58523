"""What LSTM, GRU and SimpleRNN share: a layer that makes its own cell."""

import keras
import tensorflow as tf

from keras_rnnkit.arguments import check_choice
from keras_rnnkit.layers.rnn import RNN, dropout_masks, time_major
from keras_rnnkit.recurrence import Plan, current_policy


def from_cell(name: str) -> property:
    """An attribute that the layer reads from its cell."""
    return property(lambda layer: getattr(layer.cell, name))


class CellLayer(RNN):
    """A layer that takes the arguments of its cell beside those of `RNN`.

    A layer subclasses this class and its namesake in `keras.layers`, if it has one, in
    that order, and states `cell_class` and `cell_name`.
    """

    cell_class: type
    cell_name: str

    def __init__(self, *args, **kwargs):
        given = self.signature.bind(self, *args, **kwargs).arguments
        del given["self"]
        given |= given.pop("kwargs", {})
        takes_cudnn = "use_cudnn" in self.signature.parameters
        if takes_cudnn:
            use_cudnn = given.pop("use_cudnn", "auto")
            check_choice("use_cudnn", use_cudnn, ("auto", True, False))
        names = [*self.cell_class.signature.parameters, "implementation"]
        cell = self.cell_class(
            **{name: given.pop(name) for name in names if name in given},
            **{name: given[name] for name in ("dtype", "trainable") if name in given},
            name=self.cell_name,
        )
        loop = given.pop("loop", "auto")
        # Not by `super()`: the namesake's constructor would make a cell of its own.
        keras.layers.RNN.__init__(self, cell, **given)
        self.supports_masking = True
        self.set_loop(loop)
        self.input_spec = keras.layers.InputSpec(ndim=3)
        if takes_cudnn:
            self.use_cudnn = use_cudnn
            if self._goes_to_cudnn():
                self.supports_jit = False

    def inner_loop(self, sequences, initial_state, mask, training=False):
        if getattr(self, "use_cudnn", False) and self._goes_to_cudnn():
            current_policy().note(self, Plan(False, "Keras hands it to cuDNN"))
            # Keras's own hand-over, which stands behind `RNN` in the method order.
            with dropout_masks(self.cell, time_major(sequences), initial_state):
                return super(RNN, self).inner_loop(
                    sequences, initial_state, mask, training
                )
        return super().inner_loop(sequences, initial_state, mask, training)

    def check_device(self):
        """Raises `ValueError` if cuDNN is asked for where it cannot be had."""
        if getattr(self, "use_cudnn", False) is True and not self._goes_to_cudnn():
            gpus = len(tf.config.list_logical_devices("GPU"))
            raise ValueError(
                f"`use_cudnn=True` in `{self.name}` needs a GPU and an architecture "
                f"that cuDNN knows; received {gpus} GPUs: pass `use_cudnn='auto'`"
            )

    def _goes_to_cudnn(self) -> bool:
        """Whether Keras would hand this layer over to cuDNN."""
        cell = self.cell
        return bool(
            tf.config.list_logical_devices("GPU")
            and cell.is_plain
            and not (self.unroll or cell.recurrent_dropout)
            and not (cell.dropout and cell.implementation == 1)
        )

    def get_config(self):
        config, of_cell = super().get_config(), self.cell.get_config()
        config |= {name: of_cell[name] for name in ("seed", *self.cell.options)}
        if hasattr(self, "use_cudnn"):
            config["use_cudnn"] = self.use_cudnn
        if hasattr(self.cell, "implementation"):
            config["implementation"] = self.cell.implementation
        return config
