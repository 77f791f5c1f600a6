"""Chains of kernels that are drawn by a seed, and what their kernels make one by one."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.kernels.cases import KINDS, Case
from tonsor.kernels.chain import Chain, Link, _shared, release
from tonsor.kernels.convolve import convolve
from tonsor.kernels.geometry import Geometry
from tonsor.kernels.packed import FORMS, Form

ONE, OTHER = Geometry(5, 7, (3, 3), padding=(1, 1, 1, 1)), Geometry(7, 5, (1, 1))


@dataclass(frozen=True)
class Drawn:
    """Links, what they are given, and which values are asked for."""

    links: tuple[Link, ...]
    given: tuple[Tensor, ...]
    outputs: tuple[int, ...]
    cases: tuple[Case, ...] = ()

    def chain(self) -> Chain:
        return Chain(self.links, self.given, self.outputs)

    def found(self) -> list[Tensor]:
        """What the chain makes, from memory that holds no numbers before."""
        release()
        chain = self.chain()
        spoil(chain)
        return chain(self.given)

    def wanted(self) -> list[Tensor]:
        """What the kernels make by themselves."""
        values = [*self.given]
        for link in self.links:
            added = None if link.residual is None else values[link.residual]
            values.append(convolve(link.packed, values[link.x], link.geometry, added,
                                   relu=link.relu))  # fmt: skip
        return [values[n] for n in self.outputs]


def spoil(chain: Chain) -> None:
    """Fill the memory that a chain will use with what is no number, in any type."""
    _shared.of(chain._size).fill_(255)


def same(found: list[Tensor], wanted: list[Tensor]) -> bool:
    """Whether all bits are the same."""
    return len(found) == len(wanted) and all(
        one.dtype == two.dtype and one.shape == two.shape and torch.equal(one, two)
        for one, two in zip(found, wanted, strict=True)
    )


def line(form: Form, count: int = 3, **given: int) -> Drawn:
    """Return links one after the other, of which only the last is asked for."""
    cases = [
        Case(form, None, (ONE, OTHER)[n % 2], seed=n, relu=n % 2 == 0, **given)  # type: ignore[arg-type]
        for n in range(count)
    ]
    links = [Link(c.packed(), c.geometry, c.relu, n) for n, c in enumerate(cases)]
    return Drawn(tuple(links), (cases[0].x,), (count,), tuple(cases))


def drawn_chain(seed: int) -> Drawn:
    """Draw some links in any order of reading, in all forms."""
    rng = random.Random(seed)
    batch, half = rng.randint(1, 3), rng.random() < 0.25
    layout = rng.choice([torch.channels_last, torch.contiguous_format])
    torch.manual_seed(seed)
    given = tuple(
        torch.randn(batch, rng.choice([1, 3, 8, 17]), rng.choice([5, 9]), rng.randint(4, 9))
        .to(torch.bfloat16 if half else torch.float32).contiguous(memory_format=layout)
        for _ in range(rng.choice([1, 1, 2]))
    )  # fmt: skip
    shapes = [tuple(x.shape) for x in given]
    links: list[Link] = []
    cases: list[Case] = []
    for n in range(rng.randint(1, 9)):
        x = rng.choice([len(shapes) - 1, rng.randrange(len(shapes))])
        geometry = _geometry(rng, shapes[x], shapes)
        sides = (shapes[x][2], shapes[x][3])
        made = (batch, geometry.out_channels, *geometry.out_size(sides))
        may = [i for i, shape in enumerate(shapes) if shape == made]
        case = Case(
            rng.choice(FORMS), rng.choice(KINDS), geometry, batch, sides, rng.choice([0.0, 0.5, 1]),
            bias=rng.random() < 0.8, relu=rng.random() < 0.5, half=half, seed=seed * 16 + n,
        )  # fmt: skip
        residual = rng.choice(may) if may and rng.random() < 0.8 else None
        links.append(Link(case.packed(), geometry, case.relu, x, residual))
        cases.append(case)
        shapes.append(made)
    made_here = list(range(len(given), len(shapes)))
    outputs = rng.sample(made_here, rng.randint(1, min(3, len(made_here))))
    return Drawn(tuple(links), given, tuple(outputs), tuple(cases))


def _geometry(
    rng: random.Random, of: tuple[int, ...], shapes: list[tuple[int, ...]]
) -> Geometry:  # fmt: skip
    """Keep the size more often than not, so that there is something to add."""
    channels = of[1]
    filters = rng.choice([channels, rng.choice(shapes)[1], rng.choice([1, 5, 16, 20, 33])])
    groups = 1
    if rng.random() < 0.15 and not filters % channels:
        groups = channels
    if rng.random() < 0.75 or min(of[2:]) < 4:
        side = rng.choice([1, 3])
        return Geometry(channels, filters, (side, side), padding=(side // 2,) * 4, groups=groups)  # type: ignore[arg-type]
    stride = (rng.randint(1, 2), rng.randint(1, 2))
    return Geometry(channels, filters, (2, 3), stride, (rng.randint(0, 1), 0, 0, 1), groups=groups)
