"""Models of sequences whose parts do not fit, or that are called wrongly."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnkit as rk
from keras_rnnkit.seq2seq import TokenCrossentropy
from tests.layers.test_bad_input import assert_raises
from tests.small_seq2seq import TOKENS, UNITS, gru, make, pairs, shifted


def decoder(**flags):
    return rk.AttentionDecoder(rk.GRUCell(UNITS), rk.LuongAttention(UNITS), **flags)


PARTS = {
    "no states": (
        lambda: {"encoder": rk.GRU(5, return_sequences=True)},
        "`encoder` must be a recurrent layer with `return_sequences=True` and "
        "`return_state=True`; received <GRU",
    ),
    "no sequences": (
        lambda: {"encoder": rk.GRU(5, return_state=True)},
        "`encoder` must be a recurrent layer with `return_sequences=True`",
    ),
    "no encoder": (lambda: {"encoder": keras.layers.Dense(5)}, "`encoder`.*<Dense"),
    "merge_mode": (
        lambda: {"encoder": rk.Bidirectional(gru(), merge_mode=None)},
        "`encoder` must return one sequence; received `merge_mode=None`",
    ),
    "decoder": (
        lambda: {"decoder": gru()},
        "`decoder` must be an `AttentionDecoder` with `return_sequences=True` that "
        "runs forwards; received <GRU",
    ),
    "last step": (
        lambda: {"decoder": decoder(return_sequences=False)},
        "`decoder` must .* with `return_sequences=True`",
    ),
    "backwards": (
        lambda: {"decoder": decoder(go_backwards=True)},
        "`decoder` must .* that runs forwards",
    ),
    **{
        f"{name} of another kind": (
            lambda name=name: {name: keras.layers.Dense(4)},
            f"`{name}` must be a `keras.layers.Embedding`; received <Dense",
        )
        for name in ("source_embedding", "target_embedding")
    },
    **{
        f"{name} {bad}": (
            lambda name=name, bad=bad: {name: bad},
            f"`{name}` must {say}",
        )
        for name in ("start_id", "end_id")
        for bad, say in (
            (0, "be a positive integer; received 0"),
            (1.5, "be a positive integer; received 1.5"),
            (TOKENS, "be less than the 8 tokens of `target_embedding`; received 8"),
        )
    },
    "bridge": (
        lambda: {"bridge": "tanh"},
        "`bridge` must be one of 'dense', 'copy', 'zeros'; received 'tanh'",
    ),
    "copy": (
        lambda: {"encoder": rk.Bidirectional(gru()), "bridge": "copy"},
        r"`bridge='copy'` needs states of the same sizes; received \[5, 5\] of the "
        r"encoder and \[5\] of the decoder: pass `bridge='dense'`",
    ),
    "dropout": (lambda: {"dropout": 1.0}, r"`dropout` must lie in \[0, 1\).* 1.0"),
    "sampling": (lambda: {"sampling": -0.1}, r"`sampling` must lie in \[0, 1\)"),
    "tied to an output": (
        lambda: {"tie_embeddings": True},
        "`tie_embeddings=True` needs `output=None` and a target embedding as wide as "
        "the decoder's output; received <Dense.*, 4 and 5",
    ),
    "tied widths": (
        lambda: {"tie_embeddings": True, "output": None},
        "`tie_embeddings=True` needs .*; received None, 4 and 5",
    ),
    "no output": (
        lambda: {"output": None},
        r"`output` must be a layer that makes logits, such as `Dense\(vocabulary\)`; "
        "received None without `tie_embeddings=True`",
    ),
    "width of output": (
        lambda: {"output": keras.layers.Dense(TOKENS + 1)},
        "`output` must make a logit for each of the 8 tokens of `target_embedding`; "
        "received 9",
    ),
}


@pytest.mark.parametrize(("given", "message"), PARTS.values(), ids=PARTS)
def test_parts_that_do_not_fit_raise(given, message):
    assert_raises(message, lambda: make(**given()))


def test_a_wrong_call_says_what_to_do(rng):
    model, (x, y) = make("none"), pairs(rng)
    model.compile(run_eagerly=True)
    assert_raises(r"takes the pair \(source, target\); received", model, x)
    assert_raises("call `generate` for answers", model.predict, x, verbose=0)
    assert_raises("needs targets for training; received none", model.fit, x)
    wrong = {"loss": TokenCrossentropy(), "label_smoothing": 0.1}
    assert_raises("`label_smoothing` must be 0 with", model.compile, **wrong)
    assert_raises(r"`label_smoothing` must lie in \[0, 1\)", TokenCrossentropy, 1.0)
    np.testing.assert_allclose(
        model.predict((x, shifted(y)), verbose=0), model((x, shifted(y))), atol=1e-6
    )


@pytest.mark.parametrize("loss", ["mse", "categorical_crossentropy"])
def test_a_loss_that_does_not_fit_is_refused_when_it_is_compiled(loss):
    with pytest.raises(ValueError, match=r"`loss` must take tokens .* and logits"):
        make().compile("adam", loss)
    with pytest.raises(ValueError, match="which takes probabilities"):
        make().compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="`weighted_metrics` must take tokens"):
        make().compile("adam", weighted_metrics=["mae"])


@pytest.mark.one_in(2)
@pytest.mark.parametrize("as_dataset", [False, True])
def test_targets_without_an_end_are_refused(as_dataset, rng):
    model = make()
    model.compile("adam")
    source, target = pairs(rng, 8)
    assert (target == model.end_id).any()
    model.fit(source, target, verbose=0)
    endless = np.where(target == model.end_id, 0, target)
    new = make()
    new.compile("adam")
    data = (source, endless)
    if as_dataset:
        data = (tf.data.Dataset.from_tensor_slices(data).batch(4),)
    before = [w.numpy() for w in new.trainable_weights] if new.built else None
    with pytest.raises(ValueError, match=r"must end with `end_id`; received none with"):
        new.fit(*data, shuffle=not as_dataset, verbose=0)
    if before:
        for w, value in zip(new.trainable_weights, before, strict=True):
            np.testing.assert_array_equal(w, value)
