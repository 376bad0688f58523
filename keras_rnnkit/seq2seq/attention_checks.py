"""Checks of the shapes that attention layers are built and called with."""


def check_rank(layer, name, shape, ranks):
    """Raises `ValueError` unless a shape has one of the ranks and a known last size."""
    if len(shape) not in ranks or shape[-1] is None:
        allowed = {2: "(batch, size)", 3: "(batch, steps, size)"}
        raise ValueError(
            f"`{name}` of `{layer.name}` must have shape "
            f"{' or '.join(allowed[rank] for rank in ranks)} of known size; "
            f"received shape {tuple(shape)}"
        )


def check_query(layer, query, memory):
    """Raises `ValueError` unless a query fits the memory and what the layer was built
    for."""
    if (query is None) != (layer.query_size is None):
        rule, built = ("given", "with") if query is None else ("None", "without")
        received = None if query is None else f"shape {tuple(query.shape)}"
        raise ValueError(
            f"`query` of `{layer.name}` must be {rule}, as it was built {built} "
            f"one; received {received}"
        )
    if query is None:
        return
    batches = query.shape[0], memory.shape[0]
    if None not in batches and batches[0] != batches[1]:
        raise ValueError(
            f"query and memory of `{layer.name}` must have the same batch size; "
            f"received shapes {tuple(query.shape)} and {tuple(memory.shape)}"
        )
    if layer.query_size != query.shape[-1]:
        raise ValueError(
            f"`query` of `{layer.name}` must have size {layer.query_size}; received "
            f"shape {tuple(query.shape)}"
        )


def check_equal_sizes(layer, rule, **sizes):
    """Raises `ValueError` unless all known sizes are equal."""
    if len(set(sizes.values()) - {None}) > 1:
        received = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"`{layer.name}` {rule}; received {received}")
