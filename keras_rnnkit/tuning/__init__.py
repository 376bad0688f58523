"""Search spaces for KerasTuner."""

from keras_rnnkit.tuning.progress import Progress
from keras_rnnkit.tuning.space import recurrent_stack

__all__ = ["Progress", "recurrent_stack"]
