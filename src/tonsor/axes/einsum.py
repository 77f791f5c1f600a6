"""Read the equation of an einsum."""

from __future__ import annotations

from collections.abc import Sequence


def letters(equation: str, ranks: Sequence[int], rank: int) -> tuple[list[str], str] | None:
    """Return one letter for each dimension of each operand of an einsum, and of its result.

    Dimensions under an ellipsis get digits, counted from the right.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        plain = left.replace(",", "").replace(".", "")
        right = "..." * ("..." in left)
        right += "".join(sorted(c for c in set(plain) if plain.count(c) == 1))
    spelled = [_spell(t, n) for t, n in zip([*terms, right], [*ranks, rank], strict=True)]
    if any(len(t) != n or len(set(t)) != n for t, n in zip(spelled, [*ranks, rank], strict=True)):
        return None
    return spelled[:-1], spelled[-1]


def _spell(term: str, rank: int) -> str:
    hidden = rank - len(term.replace(".", ""))
    return term.replace("...", "".join(str(i) for i in reversed(range(hidden))))
