"""What reservoirs need beyond a layer: the readout, forecasts, measures."""

from keras_rnnkit.reservoir import measures
from keras_rnnkit.reservoir.forecast import forecast
from keras_rnnkit.reservoir.online import RLS
from keras_rnnkit.reservoir.readout import Readout, fit_readout

__all__ = ["RLS", "Readout", "fit_readout", "forecast", "measures"]
