"""A part of a tensor, written anew."""


def write_at(tensor, update, start):
    """Writes `update` into a tensor, from the place `start` on."""
    # TensorFlow has no public name for this operation, which TFLite has as its own.
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    return gen_xla_ops.xla_dynamic_update_slice(tensor, update, start)
