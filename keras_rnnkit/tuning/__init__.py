"""Search spaces and progress for KerasTuner."""

from keras_rnnkit.tuning.progress import Progress
from keras_rnnkit.tuning.search_space import recurrent_stack

__all__ = ["Progress", "recurrent_stack"]
