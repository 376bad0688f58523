"""Exports Keras models to SavedModel and TFLite, and verifies the files."""

from keras_rnnkit.export.atomic_writes import check_target, size_of
from keras_rnnkit.export.flatbuffer import Content, inspect_tflite
from keras_rnnkit.export.report import ExportReport
from keras_rnnkit.export.runtime import StreamingModel, TFLiteModel
from keras_rnnkit.export.saved_model import export_saved_model
from keras_rnnkit.export.tflite import export_tflite

__all__ = [
    "Content",
    "ExportReport",
    "StreamingModel",
    "TFLiteModel",
    "check_target",
    "export_saved_model",
    "export_tflite",
    "inspect_tflite",
    "size_of",
]
