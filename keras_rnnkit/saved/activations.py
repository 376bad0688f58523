"""Activations of Keras 2 that differ from those of the same name in Keras 3."""

import keras

from keras_rnnkit.arguments import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
def keras2_hard_sigmoid(x):
    """The `hard_sigmoid` of Keras 2: `0.2 x + 0.5`, clipped to [0, 1].

    That of Keras 3 has `x / 6` in place of `0.2 x`. The name differs from
    `hard_sigmoid`, which Keras would load as its own function.

    Args:
        x: tensor of any shape.

    Returns:
        Tensor of the shape of `x`.

    Example:

    ```python
    import keras_rnnkit as rk

    layer = rk.LSTM(4, recurrent_activation=rk.saved.keras2_hard_sigmoid)
    print(float(rk.saved.keras2_hard_sigmoid(1.0)))  # 0.7
    ```
    """
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)
