"""Sequence to sequence: attention, decoder, model, search."""

from keras_rnnkit.seq2seq import search
from keras_rnnkit.seq2seq.attention import (
    Attention,
    BahdanauAttention,
    LuongAttention,
)
from keras_rnnkit.seq2seq.decoder import AttentionDecoder
from keras_rnnkit.seq2seq.decoder_cell import AttentionDecoderCell
from keras_rnnkit.seq2seq.metrics import edit_distance, error_rates
from keras_rnnkit.seq2seq.model import Seq2Seq
from keras_rnnkit.seq2seq.training import InverseSigmoid, TokenCrossentropy

__all__ = [
    "Attention",
    "AttentionDecoder",
    "AttentionDecoderCell",
    "BahdanauAttention",
    "InverseSigmoid",
    "LuongAttention",
    "Seq2Seq",
    "TokenCrossentropy",
    "edit_distance",
    "error_rates",
    "search",
]
