"""Find groups by the names people use for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from tonsor.anatomy import Anatomy
from tonsor.errors import SelectionError
from tonsor.types import Group, Member

Named = str | nn.Module


def touching(anatomy: Anatomy, wanted: Iterable[Named]) -> set[str]:
    """Return the groups that touch any of the named parameters, modules or patterns."""
    found: set[str] = set()
    for name in as_names(anatomy, wanted):
        hits = {g.name for g in anatomy.groups if any(_under(m.tensor, name) for m in g.members)}
        hits |= {g.name for g in anatomy.groups if fnmatchcase(g.name, name) or g.name == name}
        if not hits:
            hits = _known_but_ungrouped(anatomy, name)
        found |= hits
    return found


def led_by(anatomy: Anatomy, name: str) -> set[str]:
    """Return the groups that are the output of a named module, or carry that name."""
    hits = {
        g.name
        for g in anatomy.groups
        if g.name == name
        or fnmatchcase(g.name, name)
        or any(_under(m.tensor, name) and _is_output(m, g) for m in g.members)
    }
    return hits or _known_but_ungrouped(anatomy, name)


def _is_output(member: Member, group: Group) -> bool:
    return member.dim == 0 or f"{member.tensor}[{member.dim}]" == group.name


def as_names(anatomy: Anatomy, wanted: Iterable[Named]) -> Iterator[str]:
    """Turn modules into their paths; leave names and patterns as they are."""
    items = [wanted] if isinstance(wanted, (str, nn.Module)) else list(wanted)
    paths = anatomy.module_paths
    for item in items:
        if isinstance(item, nn.Module):
            if id(item) not in paths:
                message = f"a {type(item).__name__} given by object is not part of the model"
                raise SelectionError(message)
            yield paths[id(item)]
        elif item:
            yield item
        else:
            message = "'' stands for nothing; '*' is everything"
            raise SelectionError(message)


def _under(tensor: str, name: str) -> bool:
    """Whether a tensor is the named one, lies below the named module, or fits the pattern."""
    if tensor == name or tensor.startswith(f"{name}."):
        return True
    owner = tensor
    while owner:
        if fnmatchcase(owner, name):
            return True
        owner = owner.rpartition(".")[0]
    return False


def _known_but_ungrouped(anatomy: Anatomy, name: str) -> set[str]:
    """Accept modules and tensors that no group runs through; refuse unknown names."""
    modules = set(anatomy.graph.module_types)
    known = modules | set(anatomy.graph.tensors)
    if name in known or any(fnmatchcase(k, name) for k in known):
        return set()
    close = get_close_matches(name, [*known, *anatomy.by_name], n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "see print(anatomy) for all names"
    message = f"nothing in the model is called '{name}'; {hint}"
    raise SelectionError(message)
