"""What the branch of a block ends in, which makes it zero if it is zero itself."""

from __future__ import annotations

from tonsor.anatomy import Anatomy
from tonsor.families.blocks.block import Block
from tonsor.graph.spots import Spots
from tonsor.types import Op, Ref

_NORMS = ("batch_norm", "native_batch_norm", "instance_norm", "group_norm")
# What is zero stays zero in these.
_PASSES = (
    "dropout", "feature_dropout", "view", "_unsafe_view", "reshape", "flatten", "unflatten",
    "transpose", "permute", "contiguous", "clone", "squeeze", "unsqueeze", "to", "_to_copy",
)  # fmt: skip
_SUMS = ("linear", "addmm", "conv1d", "conv2d", "conv3d", "convolution")


def ends_of(anatomy: Anatomy, block: Block) -> tuple[str, ...]:
    """Name the parameters that make the branch of a block zero if they are; none if unknown.

    These are the scale and shift of a norm, or the weight and bias of a layer that sums. They are
    parameters that nothing else reads.
    """
    if block.drop is None or not block.drop.zeroed:
        return ()
    spots, found = Spots(anatomy.graph), list[str]()
    for spot in block.drop.zeroed:
        index = spots.index(spot)
        if index is None:
            return ()
        names = made_by(anatomy, anatomy.graph.ops[index][spot.argument].value, _NORMS + _SUMS)
        if not names or any(len(anatomy.uses.get(n, ())) != 1 for n in names):
            return ()
        found += names
    return tuple(dict.fromkeys(found))


def scaled_by(anatomy: Anatomy, value: int) -> tuple[str, ...]:
    """Name the parameters that scale and shift a value, if a norm is what has made it."""
    names = made_by(anatomy, value, _NORMS)
    return names if len(names) == 2 else ()


def made_by(anatomy: Anatomy, value: int, operators: tuple[str, ...]) -> tuple[str, ...]:
    """Name the weight and bias by which one of some operators has made a value."""
    maker = _maker(anatomy, value)
    if maker is None or maker.name.removeprefix("aten.") not in operators:
        return ()
    given = [maker.get(k) for k in ("weight", "bias")]
    names = [anatomy.graph.name_of.get(v.value, "") for v in given if isinstance(v, Ref)]
    return tuple(names) if all(n in anatomy.parameters for n in names) else ()


def _maker(anatomy: Anatomy, value: int) -> Op | None:
    """Return what has made a value, or that which it only shows in another form."""
    for op in reversed(anatomy.graph.ops):
        if value in op.outputs:
            if op.name.removeprefix("aten.") not in _PASSES:
                return op
            value = next(op.inputs)  # which may be the very same value
    return None
