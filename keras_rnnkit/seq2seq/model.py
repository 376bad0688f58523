"""The sequence-to-sequence model: an encoder, a bridge and a decoder."""

import keras
import tensorflow as tf
from keras import ops, tree

from keras_rnnkit.arguments import (
    PACKAGE,
    check_choice,
    check_probability,
)
from keras_rnnkit.layers.layer_stack import state_sizes
from keras_rnnkit.recurrence import run
from keras_rnnkit.seq2seq.decoder import AttentionDecoder
from keras_rnnkit.seq2seq.generation import PAD, Generation, without_padding
from keras_rnnkit.seq2seq.model_checks import (
    check_decoder,
    check_embedding,
    check_encoder,
    check_equal_states,
    check_output,
    check_token,
)
from keras_rnnkit.seq2seq.training import Training

BRIDGES = "dense", "copy", "zeros"


@keras.saving.register_keras_serializable(PACKAGE)
class Seq2Seq(Generation, Training, keras.Model):
    """An encoder-decoder model for sequences of tokens (Sutskever et al. 2014).

        m, s = encoder(embed(source))          aₜ = decoder(embed(yₜ₋₁), m, bridge(s))
        P(yₜ | y₁ … yₜ₋₁, source) = softmax(output(aₜ))

    Tokens are int ids; id 0 is padding, in source and target. `fit(source, target)`
    trains by teacher forcing: the decoder reads `start_id` and the target without its
    last token. A target ends with `end_id`. Loss and accuracy ignore padding.

    Args:
        encoder: recurrent layer of this package, including `Bidirectional` and
            `StackedRNN`, with `return_sequences=True` and `return_state=True`.
        decoder: `AttentionDecoder`.
        source_embedding, target_embedding: `keras.layers.Embedding`.
        output: layer that maps the decoder's output to logits, such as
            `Dense(vocabulary)`; None (default) with `tie_embeddings`.
        start_id, end_id: ints, the tokens before and at the end of a target.
        bridge: how to set the decoder's initial states. "dense" (default): each is a
            `Dense` layer with `tanh` on all final states of the encoder. "copy": the
            encoder's final states, which must have the same sizes in the same order.
            "zeros".
        tie_embeddings: bool, default False: logits are products with the target
            embedding, `aₜ Eᵀ + b` (Press and Wolf 2017).
        dropout: rate in [0, 1), default 0, of the embeddings and the decoder's outputs.
        sampling: probability in [0, 1), default 0, of feeding the decoder a token drawn
            from its own prediction in training (scheduled sampling, Bengio et al.
            2015), or a `keras.optimizers.schedules.LearningRateSchedule` of it over
            training steps, such as `InverseSigmoid`. Above 0, training runs step by
            step, which is slower.
        seed: int or None (default), for dropout and sampling.
        **kwargs: those of `keras.Model`, such as `name`.

    Call arguments:
        inputs: `(source, target_in)`, int `(batch, source)` and `(batch, target)`.
        training: bool, default False: apply dropout and scheduled sampling.

    Returns:
        Logits `(batch, target, vocabulary)`, float32.

    Raises:
        ValueError: the parts do not fit each other; the message says how.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_rnnkit as rk

    embed = keras.layers.Embedding
    encoder = rk.GRU(16, return_sequences=True, return_state=True)
    decoder = rk.AttentionDecoder(rk.GRUCell(16), rk.LuongAttention(16))
    model = rk.Seq2Seq(
        encoder, decoder, embed(9, 8), embed(9, 8), keras.layers.Dense(9),
        start_id=1, end_id=2,
    )
    source, target = np.array([[3, 4, 5]]), np.array([[5, 4, 3, 2]])
    model.compile()
    model.fit(source, target)
    print(model.generate(source, max_length=5))
    ```
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        decoder: AttentionDecoder,
        source_embedding: keras.layers.Embedding,
        target_embedding: keras.layers.Embedding,
        output: keras.layers.Layer | None = None,
        *,
        start_id: int,
        end_id: int,
        bridge: str = "dense",
        tie_embeddings: bool = False,
        dropout: float = 0.0,
        sampling: float | keras.optimizers.schedules.LearningRateSchedule = 0.0,
        seed: int | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.encoder, self.decoder = encoder, decoder
        self.source_embedding = source_embedding
        self.target_embedding = target_embedding
        self.output_layer = output
        self.start_id, self.end_id = start_id, end_id
        self.bridge = bridge
        self.tie_embeddings = tie_embeddings
        self.dropout = dropout
        self.sampling = sampling
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._check_parts()
        self.bridges = []
        if bridge == "dense":
            sizes = enumerate(self._decoder_sizes)
            self.bridges = [
                keras.layers.Dense(size, "tanh", name=f"bridge_{number}")
                for number, size in sizes
            ]
        self.build()

    def _check_parts(self):
        check_encoder(self.encoder)
        check_decoder(self.decoder)
        for name in ("source_embedding", "target_embedding"):
            check_embedding(name, getattr(self, name))
        for name in ("start_id", "end_id"):
            check_token(name, getattr(self, name), self.target_embedding.input_dim)
        check_choice("bridge", self.bridge, BRIDGES)
        check_probability("dropout", self.dropout)
        if not callable(self.sampling):
            check_probability("sampling", self.sampling)
        if self.bridge == "copy":
            check_equal_states(self._encoder_sizes, self._decoder_sizes)
        check_output(self)

    @property
    def _encoder_sizes(self):
        return tree.flatten(state_sizes(self.encoder))

    @property
    def _decoder_sizes(self):
        cells = self.decoder.cell.cells
        return tree.flatten([cell.state_size for cell in cells])

    def build(self, input_shape=None):
        """Creates all weights. Their shapes do not depend on `input_shape`."""
        del input_shape
        if self.built:
            return
        tokens = None, None
        for embedding in (self.source_embedding, self.target_embedding):
            if not embedding.built:
                embedding.build(tokens)
        source = *tokens, self.source_embedding.output_dim
        _build(self.encoder, source)
        memory, *_ = self.encoder.compute_output_shape(source)
        for dense in self.bridges:
            _build(dense, (None, sum(self._encoder_sizes)))
        target = *tokens, self.target_embedding.output_dim
        _build(self.decoder, target, memory)
        output = self.decoder.compute_output_shape(target, memory)
        output = output[0] if isinstance(output[0], tuple) else output
        tokens = self.target_embedding.input_dim
        if self.tie_embeddings:
            self.output_bias = self.add_weight((tokens,), "zeros", name="output_bias")
        else:
            shape = None, output[-1]
            _build(self.output_layer, shape)
            size = self.output_layer.compute_output_shape(shape)[-1]
            if size != tokens:
                raise ValueError(
                    f"`output` must make a logit for each of the {tokens} tokens of "
                    f"`target_embedding`; received {size}"
                )
        self.built = True

    # The parts of the model

    def encode(self, source, training=False):
        """Returns the memory, its mask, and the decoder's initial states or None.

        Args:
            source: int `(batch, source)`.
            training: bool, default False.
        """
        mask = ops.not_equal(source, PAD)
        x = self._embed(self.source_embedding, source, training)
        memory, *states = self.encoder(x, mask=mask, training=training)
        if getattr(self.encoder, "go_backwards", False):
            memory = ops.flip(memory, axis=1)  # in the order of the source
        if self.bridge == "zeros":
            return memory, mask, None
        if self.bridge == "dense":
            joined = ops.concatenate(tree.flatten(states), axis=-1)
            states = [dense(joined) for dense in self.bridges]
        return memory, mask, tree.flatten(states)

    def logits(self, output):
        """Returns float32 logits.

        Args:
            output: the decoder's output, of one step or of several.
        """
        x = ops.reshape(output, (-1, output.shape[-1]))
        if self.tie_embeddings:
            table = ops.cast(self.target_embedding.embeddings, x.dtype)
            x = ops.matmul(x, ops.transpose(table))
            x = x + ops.cast(self.output_bias, x.dtype)
        else:
            x = self.output_layer(x)
        shape = *ops.shape(output)[:-1], self.target_embedding.input_dim
        return ops.reshape(ops.cast(x, "float32"), shape)

    def _embed(self, embedding, tokens, training):
        return self._drop(embedding(tokens), training)

    def _drop(self, x, training):
        if not training or not self.dropout:
            return x
        return keras.random.dropout(x, self.dropout, seed=self.seed_generator)

    def call(self, inputs, training=False):
        if not isinstance(inputs, (list, tuple)) or len(inputs) != 2:
            raise ValueError(
                f"`{self.name}` takes the pair (source, target); received {inputs}: "
                "pass the target to `fit`, or call `generate` for answers"
            )
        source, target = inputs
        memory, mask, states = self.encode(source, training)
        if training and (callable(self.sampling) or self.sampling):
            return self._call_with_sampling(target, memory, mask, states)
        x = self._embed(self.target_embedding, target, training)
        output = self.decoder(
            x, memory, memory_mask=mask, initial_state=states, training=training
        )
        output = output[0] if isinstance(output, (list, tuple)) else output
        return self.logits(self._drop(output, training))

    def _call_with_sampling(self, target, memory, mask, states):
        """Returns logits of a decoder that is sometimes fed its own predictions."""
        shape = tf.shape(target)
        rate = self.sampling
        if callable(rate):
            optimizer = getattr(self, "optimizer", None)
            rate = rate(0 if optimizer is None else optimizer.iterations)
        target = tf.cast(target, tf.int32)
        noise = self.decoder.cell.draw_noise((shape[1], shape[0]), training=True)
        uses_own = keras.random.uniform(shape, seed=self.seed_generator) < rate
        seed = tf.cast(self.seed_generator.next(), tf.int32)
        step = self._make_step(memory, mask, training=True)
        states = self._initial_states(states, shape[0])

        def sampling_step(given, carried):
            (token, uses_own, t, noise), (own, *states) = given, carried
            token = tf.where(uses_own, own, token)
            logits, states, _ = step(token, states, noise or None)
            of_tokens = without_padding(tf.stop_gradient(logits))
            drawn = tf.random.stateless_categorical(of_tokens, 1, seed + t, tf.int32)
            return logits, [drawn[:, 0], *states]

        tokens = self.target_embedding.input_dim
        steps = tf.range(shape[1])
        given = tf.transpose(target), tf.transpose(uses_own), steps, noise or []
        zeros = tf.zeros((shape[0], tokens))
        own = tf.pad(target, [[0, 0], [0, 1]])[:, 0]  # there may be no steps
        logits, _ = run(sampling_step, given, [own, *states], zeros)
        return tf.transpose(logits, [1, 0, 2])

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        sampling = self.sampling
        return super().get_config() | {
            "encoder": serialize(self.encoder),
            "decoder": serialize(self.decoder),
            "source_embedding": serialize(self.source_embedding),
            "target_embedding": serialize(self.target_embedding),
            "output": self.output_layer and serialize(self.output_layer),
            "start_id": self.start_id,
            "end_id": self.end_id,
            "bridge": self.bridge,
            "tie_embeddings": self.tie_embeddings,
            "dropout": self.dropout,
            "sampling": serialize(sampling) if callable(sampling) else sampling,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        deserialize = keras.saving.deserialize_keras_object
        parts = {
            name: deserialize(value, custom_objects)
            for name, value in config.items()
            if isinstance(value, dict) and name != "dtype"
        }
        return cls(**(config | parts))


def _build(layer, *shapes):
    if not layer.built:
        layer.build(*shapes)
        layer.built = True
