"""Sequence to sequence: an encoder, a decoder, and what stands between them."""

import keras
import tensorflow as tf
from keras import ops, tree

from keras_rnnkit.arguments import (
    PACKAGE,
    check_choice,
    check_positive_integer,
    check_probability,
)
from keras_rnnkit.layers.stacked_rnn import state_sizes
from keras_rnnkit.recurrence import run
from keras_rnnkit.seq2seq.decoder import AttentionDecoder
from keras_rnnkit.seq2seq.generation import PAD, Generation, without_padding
from keras_rnnkit.seq2seq.training import Training

BRIDGES = "dense", "copy", "zeros"


@keras.saving.register_keras_serializable(PACKAGE)
class Seq2Seq(Generation, Training, keras.Model):
    """An encoder and a decoder of sequences of tokens (Sutskever et al. 2014).

        m, s = encoder(embed(source))          aₜ = decoder(embed(yₜ₋₁), m, bridge(s))
        P(yₜ | y₁ … yₜ₋₁, source) = softmax(output(aₜ))

    Tokens are int ids; id 0 is padding, in source and target. `fit(source, target)`
    trains by teacher forcing: the decoder is fed `start_id` and the target without its
    last token. A target ends with `end_id`. Loss and accuracy leave padding out.

    Args:
        encoder: recurrent layer of this package, `Bidirectional` and `StackedRNN` too,
            that returns its sequences and its states.
        decoder: `AttentionDecoder`.
        source_embedding, target_embedding: `keras.layers.Embedding`.
        output: layer that makes logits of the decoder's output, such as
            `Dense(vocabulary)`; None with `tie_embeddings`.
        start_id, end_id: ints, the target's tokens before the first and after the last.
        bridge: what the decoder begins with. "dense": each of its states is made of all
            last states of the encoder, by `tanh` of a `Dense` layer. "copy": they are
            the encoder's, of the same sizes in the same order. "zeros".
        tie_embeddings: bool, default False: logits are products with the target
            embedding, `aₜ Eᵀ + b` (Press and Wolf 2017).
        dropout: rate in [0, 1), of the embeddings and the decoder's outputs.
        sampling: probability in [0, 1) that the decoder is fed a token drawn from its
            own answer in training (scheduled sampling, Bengio et al. 2015), or a
            `keras.optimizers.schedules.LearningRateSchedule` of it over training steps,
            such as `InverseSigmoid`. Such training runs step by step, so it is slower.
        seed: int or None, of dropout and sampling.

    Call arguments:
        inputs: `(source, target_in)`, int `(batch, source)` and `(batch, target)`.

    Returns:
        Logits `(batch, target, vocabulary)`, float32.

    Raises:
        ValueError: parts that do not fit each other; see the message.
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
        encoder, decoder = self.encoder, self.decoder
        given = [getattr(encoder, f"return_{x}", None) for x in ("sequences", "state")]
        if given != [True, True]:
            raise ValueError(
                "`encoder` must be a recurrent layer with `return_sequences=True` and "
                f"`return_state=True`; received {encoder}"
            )
        if getattr(encoder, "merge_mode", "concat") is None:
            raise ValueError(
                "`encoder` must return one sequence; received `merge_mode=None`"
            )
        fits = isinstance(decoder, AttentionDecoder) and decoder.return_sequences
        if not fits or decoder.go_backwards:
            raise ValueError(
                "`decoder` must be an `AttentionDecoder` with `return_sequences=True` "
                f"that runs forwards; received {decoder}"
            )
        for name in ("source_embedding", "target_embedding"):
            if not isinstance(getattr(self, name), keras.layers.Embedding):
                raise ValueError(
                    f"`{name}` must be a `keras.layers.Embedding`; received "
                    f"{getattr(self, name)}"
                )
        for name in ("start_id", "end_id"):
            check_positive_integer(name, getattr(self, name))
            tokens = self.target_embedding.input_dim
            if getattr(self, name) >= tokens:
                raise ValueError(
                    f"`{name}` must be less than the {tokens} tokens of "
                    f"`target_embedding`; received {getattr(self, name)}"
                )
        check_choice("bridge", self.bridge, BRIDGES)
        check_probability("dropout", self.dropout)
        if not callable(self.sampling):
            check_probability("sampling", self.sampling)
        have, want = self._encoder_sizes, self._decoder_sizes
        if self.bridge == "copy" and have != want:
            raise ValueError(
                "`bridge='copy'` needs states of the same sizes; received "
                f"{have} of the encoder and {want} of the decoder: pass "
                "`bridge='dense'`"
            )
        size = self.target_embedding.output_dim
        width = decoder.compute_output_shape((None, None, size), (None, None, 1))
        width = (width[0] if isinstance(width[0], tuple) else width)[-1]
        if self.tie_embeddings and (self.output_layer or width != size):
            raise ValueError(
                "`tie_embeddings=True` needs `output=None` and a target embedding as "
                f"wide as the decoder's output; received {self.output_layer}, {size} "
                f"and {width}"
            )
        if not self.tie_embeddings and self.output_layer is None:
            raise ValueError(
                "`output` must be a layer that makes logits, such as "
                "`Dense(vocabulary)`; received None without `tie_embeddings=True`"
            )

    @property
    def _encoder_sizes(self):
        return tree.flatten(state_sizes(self.encoder))

    @property
    def _decoder_sizes(self):
        cells = self.decoder.cell.cells
        return tree.flatten([cell.state_size for cell in cells])

    def build(self, input_shape=None):
        """Makes all weights; what they depend on is known before the first call."""
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
            made = self.output_layer.compute_output_shape(shape)[-1]
            if made != tokens:
                raise ValueError(
                    f"`output` must make a logit for each of the {tokens} tokens of "
                    f"`target_embedding`; received {made}"
                )
        self.built = True

    # The model, part by part

    def encode(self, source, training=False):
        """Returns the memory, its mask and the decoder's first states, None for zeros.

        Args:
            source: int `(batch, source)`.
        """
        mask = ops.not_equal(source, PAD)
        x = self._embedded(self.source_embedding, source, training)
        memory, *states = self.encoder(x, mask=mask, training=training)
        if getattr(self.encoder, "go_backwards", False):
            memory = ops.flip(memory, axis=1)  # into the order of the source
        if self.bridge == "zeros":
            return memory, mask, None
        if self.bridge == "dense":
            both = ops.concatenate(tree.flatten(states), axis=-1)
            states = [dense(both) for dense in self.bridges]
        return memory, mask, tree.flatten(states)

    def logits(self, output):
        """The logits, float32, of what the decoder puts out, of one step or several."""
        x = ops.reshape(output, (-1, output.shape[-1]))
        if self.tie_embeddings:
            table = ops.cast(self.target_embedding.embeddings, x.dtype)
            x = ops.matmul(x, ops.transpose(table))
            x = x + ops.cast(self.output_bias, x.dtype)
        else:
            x = self.output_layer(x)
        shape = *ops.shape(output)[:-1], self.target_embedding.input_dim
        return ops.reshape(ops.cast(x, "float32"), shape)

    def _embedded(self, embedding, tokens, training):
        return self._dropped(embedding(tokens), training)

    def _dropped(self, x, training):
        if not training or not self.dropout:
            return x
        return keras.random.dropout(x, self.dropout, seed=self.seed_generator)

    def call(self, inputs, training=False):
        if not isinstance(inputs, (list, tuple)) or len(inputs) != 2:
            raise ValueError(
                f"`{self.name}` takes the pair (source, target); received {inputs}: "
                "pass the target to `fit`, and call `generate` for answers"
            )
        source, target = inputs
        memory, mask, states = self.encode(source, training)
        if training and (callable(self.sampling) or self.sampling):
            return self._sampled(target, memory, mask, states)
        x = self._embedded(self.target_embedding, target, training)
        output = self.decoder(
            x, memory, memory_mask=mask, initial_state=states, training=training
        )
        output = output[0] if isinstance(output, (list, tuple)) else output
        return self.logits(self._dropped(output, training))

    def _sampled(self, target, memory, mask, states):
        """Logits where the decoder is fed tokens of its own now and then."""
        shape = tf.shape(target)
        rate = self.sampling
        if callable(rate):
            optimizer = getattr(self, "optimizer", None)
            rate = rate(0 if optimizer is None else optimizer.iterations)
        target = tf.cast(target, tf.int32)
        noise = self.decoder.cell.draw_noise((shape[1], shape[0]), training=True)
        coins = keras.random.uniform(shape, seed=self.seed_generator) < rate
        seed = tf.cast(self.seed_generator.next(), tf.int32)
        step = self._stepper(memory, mask, training=True)
        states = self._first_states(states, shape[0])

        def sampling_step(given, carried):
            (token, coin, t, noise), (own, *states) = given, carried
            token = tf.where(coin, own, token)
            logits, states, _ = step(token, states, noise or None)
            likely = without_padding(tf.stop_gradient(logits))
            draw = tf.random.stateless_categorical(likely, 1, seed + t, tf.int32)
            return logits, [draw[:, 0], *states]

        tokens = self.target_embedding.input_dim
        steps = tf.range(shape[1])
        given = tf.transpose(target), tf.transpose(coins), steps, noise or []
        first = tf.zeros((shape[0], tokens))
        own = tf.pad(target, [[0, 0], [0, 1]])[:, 0]  # there may be no steps
        logits, _ = run(sampling_step, given, [own, *states], first)
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
        made = {
            name: deserialize(value, custom_objects)
            for name, value in config.items()
            if isinstance(value, dict) and name != "dtype"
        }
        return cls(**(config | made))


def _build(layer, *shapes):
    if not layer.built:
        layer.build(*shapes)
        layer.built = True
