"""The flags and states that a stack shares with its layers."""

from keras_rnnkit.layers.sequence import SequenceLayer


def state_sizes(layer):
    """Returns the sizes of a layer's states, also of a `Bidirectional` of Keras."""
    if hasattr(layer, "state_size"):
        return list(layer.state_size)
    return [*state_sizes(layer.forward_layer), *state_sizes(layer.backward_layer)]


def output_shape(layer, shape):
    """Returns the shape of a layer's output, without its states."""
    shape = layer.compute_output_shape(shape)
    return shape[0] if layer.return_state else shape


def set_flag(layer, name, value):
    """Sets an attribute of a layer, and of both directions of a `Bidirectional`."""
    setattr(layer, name, value)
    for direction in ("forward_layer", "backward_layer"):
        if hasattr(layer, direction):
            set_flag(getattr(layer, direction), name, value)
            if name == "return_sequences":  # as the constructor of `Bidirectional` does
                getattr(layer, direction).zero_output_for_mask = value


def shared_flag(name: str) -> property:
    """A property of a stack that has the same value in all its layers."""

    def get(stack):
        return getattr(stack.layers[0], name)

    def set_in_all(stack, value):
        for layer in stack.layers:
            set_flag(layer, name, value)

    return property(get, set_in_all)


class LayerStack(SequenceLayer):
    """A layer made of `layers`, with the flags and states of a recurrent layer."""

    return_state = shared_flag("return_state")
    stateful = shared_flag("stateful")

    @property
    def return_sequences(self):
        return self.layers[-1].return_sequences

    @return_sequences.setter
    def return_sequences(self, value):
        set_flag(self.layers[-1], "return_sequences", value)

    @property
    def zero_output_for_mask(self):
        return getattr(self.layers[-1], "zero_output_for_mask", None)

    @zero_output_for_mask.setter
    def zero_output_for_mask(self, value):
        self.layers[-1].zero_output_for_mask = value

    @property
    def state_size(self):
        """The sizes of the states of all layers, in order."""
        return [size for layer in self.layers for size in state_sizes(layer)]

    @property
    def states(self):
        """The states of a stateful stack, or `None`."""
        states = [layer.states for layer in self.layers]
        return None if None in states else [s for each in states for s in each]

    def reset_state(self):
        """Sets the states of a stateful stack to zero."""
        for layer in self.layers:
            layer.reset_state()
