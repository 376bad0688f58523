"""Functions of Keras 2 that Keras 3 computes otherwise under the same name."""

import keras

from keras_rnnkit.arguments import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
def keras2_hard_sigmoid(x):
    """Keras 2's `hard_sigmoid`, `0.2 x + 0.5` between 0 and 1; Keras 3's has `x / 6`.

    Its name is not `hard_sigmoid`, which Keras would read back as its own.
    """
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)
