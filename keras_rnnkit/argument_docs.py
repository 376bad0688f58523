"""Assembles the `Args:` sections of docstrings, so that no text is written twice."""

import inspect
import re

# The arguments that layers and cells share with Keras.
KERAS = """
Args:
    activation: str or callable, default "tanh". The activation of the new state; None
        is linear.
    recurrent_activation: str or callable, default "sigmoid". The activation of the
        gates; None is linear.
    use_bias: bool, default True. Whether to add a bias.
    kernel_initializer: initializer of `kernel`, default "glorot_uniform".
    recurrent_initializer: initializer of `recurrent_kernel`, default "orthogonal".
    bias_initializer: initializer of `bias`, default "zeros".
    unit_forget_bias: bool, default True. Initializes the bias of the forget gate with
        ones (Jozefowicz et al. 2015).
    kernel_regularizer: regularizer of `kernel`, default None.
    recurrent_regularizer: regularizer of `recurrent_kernel`, default None.
    bias_regularizer: regularizer of `bias`, default None.
    activity_regularizer: regularizer of the layer's output, default None.
    kernel_constraint: constraint on `kernel`, default None.
    recurrent_constraint: constraint on `recurrent_kernel`, default None.
    bias_constraint: constraint on `bias`, default None.
    dropout: float in [0, 1), default 0. The share of the inputs to drop in training,
        the same ones at every step of a sequence.
    recurrent_dropout: float in [0, 1), default 0. The share of the previous output to
        drop in training, the same units at every step.
    seed: int or None, default None. The seed of dropout and zoneout.
    use_cudnn: "auto", True or False, default "auto". Whether to run on cuDNN, which
        needs a GPU and a layer without options of this package. True raises a
        `ValueError` where cuDNN cannot run.
    **kwargs: `name`, `dtype` and `trainable`, as for `keras.layers.Layer`.
"""
SECTION = re.compile(r"^Args:\n((?: {4}.*\n?)+)", re.MULTILINE)


def arguments_of(docstring: str | None) -> dict[str, str]:
    """Returns the entries of the `Args:` section by the name of the argument."""
    section = SECTION.search(inspect.cleandoc(docstring or ""))
    if section is None:
        return {}
    entries = re.split(r"^ {4}(?! )", section[1].rstrip(), flags=re.MULTILINE)[1:]
    return {entry.partition(":")[0]: entry.rstrip() for entry in entries}


def complete_docstring(cls: type, signature: inspect.Signature, *sources: type):
    """Completes the `Args:` section of a class to all arguments of its signature.

    Arguments that the class does not document are taken from `sources` and then from
    `KERAS`. What the sources document beyond the signature is passed in `**kwargs`, and
    listed too, except for the `cell`, which such classes make themselves.
    """
    if cls.__doc__ is None:  # python -OO
        return
    docstring = inspect.cleandoc(cls.__doc__)
    own = arguments_of(docstring)
    inherited = {}
    for source in sources:
        inherited |= arguments_of(source.__doc__)
    if "cell" not in signature.parameters:
        inherited.pop("cell", None)
    known = arguments_of(KERAS) | inherited | own
    names = [name for name in signature.parameters if name not in ("self", "kwargs")]
    names = dict.fromkeys([*names, *own, *inherited])
    names.pop("**kwargs", None)
    entries = [known[name] for name in (*names, "**kwargs") if name in known]
    section = "Args:\n" + "".join(f"    {entry}\n" for entry in entries)
    cls.__doc__ = SECTION.sub(lambda _: section, docstring, count=1)
