"""The base class of layers that make their own cell: LSTM, GRU, SimpleRNN, ESN."""

import keras
import tensorflow as tf

from keras_rnnkit.arguments import check_choice
from keras_rnnkit.layers.keras_dropout import dropout_masks
from keras_rnnkit.layers.rnn import RNN, time_major
from keras_rnnkit.recurrence import Plan, current_policy


def from_cell(name: str) -> property:
    """A property of the layer that reads an attribute of its cell."""
    return property(lambda layer: getattr(layer.cell, name))


class CellLayer(RNN):
    """A layer that takes the arguments of its cell and those of `RNN`.

    A layer subclasses this class and its namesake in `keras.layers`, if it has one, in
    that order, and sets `cell_class` and `cell_name`.
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
        # Not `super()`: the constructor of Keras's layer would make its own cell.
        keras.layers.RNN.__init__(self, cell, **given)
        self.supports_masking = True
        self.set_loop(loop)
        self.input_spec = keras.layers.InputSpec(ndim=3)
        if takes_cudnn:
            self.use_cudnn = use_cudnn
            if self._runs_on_cudnn():
                self.supports_jit = False

    def inner_loop(self, sequences, initial_state, mask, training=False):
        if getattr(self, "use_cudnn", False) and self._runs_on_cudnn():
            current_policy().note(self, Plan(False, "Keras runs it on cuDNN"))
            # Keras's own method, which comes after `RNN` in the method order.
            with dropout_masks(self.cell, time_major(sequences), initial_state):
                return super(RNN, self).inner_loop(
                    sequences, initial_state, mask, training
                )
        return super().inner_loop(sequences, initial_state, mask, training)

    def check_device(self):
        """Raises `ValueError` if `use_cudnn=True` and cuDNN cannot run the layer."""
        if getattr(self, "use_cudnn", False) is True and not self._runs_on_cudnn():
            gpus = len(tf.config.list_logical_devices("GPU"))
            raise ValueError(
                f"`use_cudnn=True` in `{self.name}` needs a GPU and an architecture "
                f"that cuDNN supports; received {gpus} GPUs: pass `use_cudnn='auto'`"
            )

    def _runs_on_cudnn(self) -> bool:
        """Whether Keras would run this layer on cuDNN."""
        cell = self.cell
        return bool(
            tf.config.list_logical_devices("GPU")
            and cell.is_plain
            and not (self.unroll or cell.recurrent_dropout)
            and not (cell.dropout and cell.implementation == 1)
        )

    def get_config(self):
        config, cell_config = super().get_config(), self.cell.get_config()
        config |= {name: cell_config[name] for name in ("seed", *self.cell.options)}
        if hasattr(self, "use_cudnn"):
            config["use_cudnn"] = self.use_cudnn
        if hasattr(self.cell, "implementation"):
            config["implementation"] = self.cell.implementation
        return config
