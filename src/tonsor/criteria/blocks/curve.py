"""How much is known of the classes after each block: the way that imprinting and probes share.

Something learns the classes from what each block returns, on one part of the data, and is judged
on another. A block is worth what it adds to the accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from tonsor.criteria.blocks.look import Run, look, repeated
from tonsor.criteria.blocks.material import Material
from tonsor.criteria.blocks.pooled import channel_dim, pooled
from tonsor.criteria.blocks.scores import BlockScores
from tonsor.errors import ScoreError
from tonsor.families.blocks.block import Block
from tonsor.graph.inputs import tensors_in

First = Literal["zero", "stem"]
EVERY = 5
"""Of so many minibatches that are given alone, the second is kept to judge on."""
_SET_ASIDE = 1 << 30  # bytes
_STEM = ""


class Learner(Protocol):
    """Learns classes from vectors, bit by bit, and then predicts them."""

    def learn(self, vectors: Tensor, classes: Tensor) -> None:
        """Take in one minibatch."""
        ...

    def settle(self) -> None:
        """Make ready to predict what was learned."""
        ...

    def predict(self, vectors: Tensor) -> Tensor:
        """Return the class of each vector."""
        ...


@dataclass(slots=True)
class Held:
    """Minibatches of which every fifth is set aside as the others are gone through."""

    batches: Iterable[Any]
    at_most: int | None = None
    aside: list[Any] = field(default_factory=list)

    def __iter__(self) -> Iterator[Any]:
        # What is a list holds its minibatches anyway.
        free, room = isinstance(self.batches, (list, tuple)), _SET_ASIDE
        for number, batch in enumerate(islice(self.batches, self.at_most)):
            if number % EVERY != 1:
                yield batch
                continue
            self.aside.append(batch)
            room -= 0 if free else sum(t.nbytes for _, t in tensors_in(batch))
            if room < 0:
                message = (
                    "every fifth minibatch is kept in memory to judge on, and these are more than "
                    "1 GiB; give what to judge on as judge=..., or fewer minibatches by at_most=..."
                )
                raise ScoreError(message)


def curve(
    material: Material, by: str, learner: Callable[[], Learner], size: int, first: First
) -> BlockScores:
    """Score blocks by what they add to the accuracy of what is learned from their results.

    Without `judge`, the second of every five minibatches is kept to judge on, and the others are
    learned from. The gain of the first block is from 0, or from the accuracy that its input
    allows (`first="stem"`).
    """
    material.check_runs(by)
    course = _Course(material, learner, size, first)
    taught, judge = material.shown(by), material.judge
    if judge is None:
        held = Held(taught, material.at_most)
        look(material, held, course.learn, about="learning classes", inputs=course.inputs)
        judge = held.aside
        if not judge:
            message = (
                "of several minibatches the second is kept to judge on, and there is only one; "
                "give more, or what to judge on as judge=..."
            )
            raise ScoreError(message)
    else:
        look(material, taught, course.learn, about="learning classes", inputs=course.inputs)
    course.settle()
    look(material, judge, course.judge, about="judging blocks", inputs=course.inputs,
         output=course.judge_network)  # fmt: skip
    return course.scores(by, "every fifth minibatch" if material.judge is None else "judge")


class _Course:
    """Learners for all blocks, and how often each was right."""

    def __init__(
        self, material: Material, learner: Callable[[], Learner], size: int, first: First
    ) -> None:
        blocks = material.blocks
        start = blocks[0] if len(blocks) else None
        if first == "stem" and (start is None or not start.takes):
            message = "nothing goes into the first block, so first='stem' says nothing here"
            raise ScoreError(message)
        self.material, self.first, self.inputs = material, first, set[str]()
        if start is not None and first == "stem":
            self.inputs.add(start.name)
        self.size = size or (512 if all(b.kind == "plain" for b in blocks) else 2048)
        self._channel = {b.name: channel_dim(material.anatomy, b) for b in blocks}
        self._learners = {n: learner() for n in (_STEM, *self._channel)}
        self._dims: dict[str, int] = {}
        self._right: dict[str, int] = {}
        self._network: int | None = None
        self._taught = torch.zeros(0, dtype=torch.long)
        self._judged = torch.zeros(0, dtype=torch.long)
        self.unscored = {b.name: why for b in blocks if (why := repeated(material.anatomy, b))}
        self._noted = -1

    def learn(self, run: Run, block: Block, given: Tensor | None, result: Tensor) -> None:
        """Let the learner of a block see what it returned."""
        classes = self._classes(run)
        if run.number != self._noted:
            self._taught, self._noted = _counted(self._taught, classes), run.number
        for name, vectors in self._vectors(run, block, given, result):
            self._learners[name].learn(vectors, classes.to(vectors.device))

    def settle(self) -> None:
        """Make all learners ready."""
        self._noted = -1
        for name in self._dims:
            self._learners[name].settle()

    def judge(self, run: Run, block: Block, given: Tensor | None, result: Tensor) -> None:
        """Count how often what was learned of a block is right."""
        classes = self._classes(run)
        if run.number != self._noted:
            self._judged, self._noted = _counted(self._judged, classes), run.number
        for name, vectors in self._vectors(run, block, given, result):
            if name in self._dims:
                found = self._learners[name].predict(vectors)
                right = int((found == classes.to(found.device)).sum())
                self._right[name] = self._right.get(name, 0) + right

    def judge_network(self, run: Run, output: Any) -> None:
        """Count how often the model itself is right, if it returns scores of classes."""
        logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
        if isinstance(logits, Tensor) and logits.dim() == 2 and len(logits) == run.samples:
            right = int((logits.argmax(1) == self._classes(run).to(logits.device)).sum())
            self._network = (self._network or 0) + right

    def _vectors(
        self, run: Run, block: Block, given: Tensor | None, result: Tensor
    ) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in ((_STEM, given), (block.name, result)):
            if tensor is None or name in self.unscored:
                continue
            if tensor.dim() < 2 or len(tensor) != run.samples:
                self.unscored[name] = (
                    f"what it returns is of shape {tuple(tensor.shape)}, in which the "
                    f"{run.samples} samples of a minibatch do not come first"
                )
                continue
            vectors = pooled(tensor, self._channel[block.name], self.size)
            known = self._dims.setdefault(name, vectors.shape[1])
            if vectors.shape[1] != known:
                message = (
                    f"block '{block.name}' returns {vectors.shape[1]} numbers a sample on this "
                    f"minibatch, after pooling, and {known} on others; give inputs of one size"
                )
                raise ScoreError(message)
            yield name, vectors

    def _classes(self, run: Run) -> Tensor:
        target = run.target
        if (
            not isinstance(target, Tensor)
            or target.shape != (run.samples,)
            or target.is_floating_point()
            or bool((target < 0).any())
        ):
            got = f"of shape {tuple(target.shape)}" if isinstance(target, Tensor) else repr(target)
            message = (
                "the target of a minibatch must be the number of the class of each of its "
                f"{run.samples} samples, from 0 up; it is {got[:60]}"
            )
            raise ScoreError(message)
        return target.long()

    def scores(self, by: str, judged_on: str) -> BlockScores:
        """Return what every block has added."""
        total = int(self._judged.sum())
        curve = {n: right / total for n, right in self._right.items() if n != _STEM}
        curve = {b.name: curve[b.name] for b in self.material.blocks if b.name in curve}
        for block in self.material.blocks:
            if block.name not in curve:
                self.unscored.setdefault(block.name, "it was not met in any run")
        before = self._right.get(_STEM, 0) / total
        values = {}
        for name, after in curve.items():
            values[name], before = after - before, after
        conditions = {
            "learned_from": int(self._taught.sum()), "judged": total, "judged_on": judged_on,
            "size": self.size, "first": self.first, "untaught": self._untaught(),
        }  # fmt: skip
        if self.first == "stem":
            conditions["stem"] = self._right.get(_STEM, 0) / total
        network = None if self._network is None else self._network / total
        return BlockScores(values, by, self.unscored, conditions, curve, network)

    def _untaught(self) -> list[int]:
        """The classes that were asked for and never learned."""
        taught = torch.zeros_like(self._judged)
        count = min(len(taught), len(self._taught))
        taught[:count] = self._taught[:count]
        return ((self._judged > 0) & (taught == 0)).nonzero().flatten().tolist()


def _counted(counts: Tensor, classes: Tensor) -> Tensor:
    """Add up how often each class occurs."""
    more = torch.bincount(classes.cpu(), minlength=len(counts))
    more[: len(counts)] += counts
    return more
