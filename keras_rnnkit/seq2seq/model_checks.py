"""Checks of the parts that make up a `Seq2Seq`; each raises `ValueError`."""

import keras

from keras_rnnkit.arguments import check_positive_integer
from keras_rnnkit.seq2seq.decoder import AttentionDecoder


def check_encoder(encoder):
    returned = [getattr(encoder, f"return_{x}", None) for x in ("sequences", "state")]
    if returned != [True, True]:
        raise ValueError(
            "`encoder` must be a recurrent layer with `return_sequences=True` and "
            f"`return_state=True`; received {encoder}"
        )
    if getattr(encoder, "merge_mode", "concat") is None:
        raise ValueError(
            "`encoder` must return one sequence; received `merge_mode=None`"
        )


def check_decoder(decoder):
    fits = isinstance(decoder, AttentionDecoder) and decoder.return_sequences
    if not fits or decoder.go_backwards:
        raise ValueError(
            "`decoder` must be an `AttentionDecoder` with `return_sequences=True` "
            f"that runs forwards; received {decoder}"
        )


def check_embedding(name, layer):
    if not isinstance(layer, keras.layers.Embedding):
        raise ValueError(
            f"`{name}` must be a `keras.layers.Embedding`; received {layer}"
        )


def check_token(name, token, vocabulary):
    check_positive_integer(name, token)
    if token >= vocabulary:
        raise ValueError(
            f"`{name}` must be less than the {vocabulary} tokens of "
            f"`target_embedding`; received {token}"
        )


def check_equal_states(encoder_sizes, decoder_sizes):
    if encoder_sizes != decoder_sizes:
        raise ValueError(
            "`bridge='copy'` needs states of the same sizes; received "
            f"{encoder_sizes} of the encoder and {decoder_sizes} of the decoder: pass "
            "`bridge='dense'`"
        )


def check_output(model):
    """Checks that either `output` or `tie_embeddings` makes the logits."""
    size = model.target_embedding.output_dim
    shape = model.decoder.compute_output_shape((None, None, size), (None, None, 1))
    width = (shape[0] if isinstance(shape[0], tuple) else shape)[-1]
    if model.tie_embeddings and (model.output_layer or width != size):
        raise ValueError(
            "`tie_embeddings=True` needs `output=None` and a target embedding as "
            f"wide as the decoder's output; received {model.output_layer}, {size} "
            f"and {width}"
        )
    if not model.tie_embeddings and model.output_layer is None:
        raise ValueError(
            "`output` must be a layer that makes logits, such as "
            "`Dense(vocabulary)`; received None without `tie_embeddings=True`"
        )
