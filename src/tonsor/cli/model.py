"""From words on a command line to a model and its example inputs."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import re
import sys
import zlib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model
from torch import Tensor, nn

from tonsor.artifact import load, read_plan
from tonsor.errors import SelectionError, TonsorError
from tonsor.graph.describe import draw
from tonsor.graph.inputs import Inputs
from tonsor.plans import Plan
from tonsor.zoo.loading import fill as fill_zoo
from tonsor.zoo.registry import input_shape, maker, names

ZOO_PLACE = "zoo"  # what stands before the colon for models that tonsor brings
_NAME = re.compile(r"([A-Za-z_]\w*)=")
_FORM = (
    "write sizes with commas, such as 1,3,224,224; with a name, a type and a range where they "
    "matter: ids=2,16:int64:0..100"
)


# ---------------------------------------------------------------- the model


def find(spec: str) -> Any:
    """Import what `package.module:name`, `path/to/file.py:name` or `zoo:name` points at."""
    place, _, name = spec.rpartition(":")
    if not place or not name:
        message = f"'{spec}' does not say which model: write package.module:name or file.py:name."
        raise SelectionError(message + _offers(spec))
    if place == ZOO_PLACE:
        return maker(name)
    found: Any = _import(place)
    for i, step in enumerate(name.split(".")):
        if not hasattr(found, step):
            where = ":".join([place, *name.split(".")[:i]])
            close = get_close_matches(step, dir(found), n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else _offered(found)
            message = f"'{where}' has nothing called '{step}'; {hint}"
            raise SelectionError(message)
        found = getattr(found, step)
    return found


def build(found: Any, spec: str, arguments: str = "", seed: int = 0) -> nn.Module:
    """Make a model of a class or function, with arguments in JSON; an instance is one already."""
    keywords = _keywords(arguments)
    if isinstance(found, nn.Module):
        if keywords:
            message = f"'{spec}' is a model already, so --args has nothing to go to"
            raise SelectionError(message)
        return found
    if not callable(found):
        message = (
            f"'{spec}' is of type {type(found).__name__}, no model nor anything that makes one"
        )
        raise SelectionError(message)
    torch.manual_seed(seed)
    try:
        model = found(**keywords)
    except TonsorError:
        raise
    except Exception as error:
        message = (
            f"{spec}{_signature(found)} could not be made with --args '{arguments or '{}'}': "
            f"{type(error).__name__}: {error}"
        )
        raise SelectionError(message) from error
    if not isinstance(model, nn.Module):
        message = f"'{spec}' makes something of type {type(model).__name__}, not a torch.nn.Module"
        raise SelectionError(message)
    return model.eval()


def fill(model: nn.Module, path: str, spec: str = "") -> tuple[nn.Module, Plan | None]:
    """Load weights from a safetensors file; from a tonsor file, the slim model and its plan.

    Into a model of the zoo, which `spec` then says, go state dicts that torch has saved too.
    """
    try:
        if _is_slim(path):
            return load(path, model), read_plan(path)
        place, _, name = spec.partition(":")
        if place == ZOO_PLACE:
            fill_zoo(model, name, path)
            return model, None
        load_model(model, path)
    except SafetensorError as error:
        message = (
            f"'{path}' is not a safetensors file ({error}). tonsor reads no pickles: load the "
            "weights in Python and write them with safetensors.torch.save_model."
        )
        raise SelectionError(message) from error
    except RuntimeError as error:
        text = " ".join(str(error).split())
        message = f"the weights in '{path}' do not fit this {type(model).__name__}: {text}"
        raise SelectionError(message) from error
    return model, None


def _is_slim(path: str) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return "tonsor" in (file.metadata() or {})
    except SafetensorError:
        return False  # whoever reads it says what it is instead


def _import(place: str) -> ModuleType:
    path = Path(place)
    try:
        if path.suffix == ".py":
            return _import_file(path)
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            message = f"'{place}' needs '{error.name}', which is not installed"
        else:
            message = f"there is no module '{error.name}' here or among the installed packages"
            if Path(place.replace(".", "/") + ".py").is_file() or "/" in place:
                message += "; a file is given with its ending, as in nets.py:Net"
        raise SelectionError(message) from error
    except TonsorError:
        raise
    except Exception as error:
        message = f"importing '{place}' failed with {type(error).__name__}: {error}"
        raise SelectionError(message) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        message = f"there is no file '{path}'"
        raise SelectionError(message)
    path = path.resolve()
    name = path.stem
    if _file_of(name) not in (None, str(path)):
        name = f"{name}_{zlib.crc32(os.fsencode(path)):08x}"  # never in another module's place
    if name in sys.modules:
        return sys.modules[name]
    sys.path.insert(0, str(path.parent))  # what stands beside the file can be imported from it
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _file_of(name: str) -> str | None:
    """Return the file that a name is imported from, or None where there is nothing of it."""
    if name in sys.modules:
        return getattr(sys.modules[name], "__file__", None) or "built in"
    found = importlib.util.find_spec(name)
    return None if found is None else found.origin or "built in"


def _models_in(module: Any) -> list[str]:
    """Name the models, and the classes of models, that a module has at its top."""
    return [
        name
        for name, value in vars(module).items()
        if isinstance(value, nn.Module)
        or (
            isinstance(value, type)
            and issubclass(value, nn.Module)
            and value.__module__ == getattr(module, "__name__", "")
        )
    ]


def _offered(module: Any) -> str:
    models = _models_in(module) if isinstance(module, ModuleType) else []
    return f"it has {', '.join(models[:8])}" if models else "it has no models at its top"


def _offers(spec: str) -> str:
    """Guess what was meant where the name of the model is missing."""
    if spec.endswith(".py") and Path(spec).is_file():
        return f" {spec}: {_offered(_import(spec))}."
    if spec in names():
        return f" Perhaps {ZOO_PLACE}:{spec}?"
    head, _, tail = spec.rpartition(".")
    return f" Perhaps {head}:{tail}?" if head and not spec.endswith(".py") else ""


def _keywords(arguments: str) -> Mapping[str, Any]:
    try:
        keywords = json.loads(arguments or "{}")
    except json.JSONDecodeError as error:
        message = f"""--args takes JSON such as '{{"width": 32}}', and this is not: {error}"""
        raise SelectionError(message) from error
    if not isinstance(keywords, dict):
        message = f"""--args takes keywords such as '{{"width": 32}}', got {arguments}"""
        raise SelectionError(message)
    return keywords


def _signature(found: Any) -> str:
    try:
        return str(inspect.signature(found))
    except (TypeError, ValueError):
        return ""


# ---------------------------------------------------------------- the inputs


def zoo_inputs(spec: str, arguments: str) -> list[str]:
    """Say what a model of the zoo runs on, as text; of others nothing is known.

    >>> zoo_inputs("zoo:resnet50", "{}"), zoo_inputs("nets.py:Net", "{}")
    (['1,3,224,224'], [])
    """
    place, _, name = spec.partition(":")
    if place != ZOO_PLACE:
        return []
    shape = input_shape(name, **_keywords(arguments))
    return [",".join(map(str, (1, *shape)))]


def read_inputs(texts: Iterable[str], seed: int = 0) -> Inputs:
    """Make example inputs from texts such as `1,3,224,224` or `ids=2,16:int64:0..100`.

    >>> read_inputs(["1,3,8,8", "mask=1,8:bool"])
    Inputs((1, 3, 8, 8), mask=(1, 8))
    """
    generator = torch.Generator().manual_seed(seed)
    positional, named = [], {}
    for text in texts:
        found = _NAME.match(text)
        name = found[1] if found else ""
        if name in named:
            message = f"the input '{name}' is given twice"
            raise SelectionError(message)
        tensor = _tensor(text, text[len(name) + 1 :] if name else text, generator)
        if name:
            named[name] = tensor
        else:
            positional.append(tensor)
    if not positional and not named:
        message = f"an example input is needed: --input SHAPE. {_FORM[0].upper()}{_FORM[1:]}."
        raise SelectionError(message)
    return Inputs(*positional, **named)


def _tensor(text: str, form: str, generator: torch.Generator) -> Tensor:
    sizes, *rest = form.split(":")
    limits = [r for r in rest if ".." in r]
    kinds = [r for r in rest if ".." not in r]
    if not re.fullmatch(r"\d+(,\d+)*", sizes) or len(limits) > 1 or len(kinds) > 1:
        message = f"can't read the input '{text}': {_FORM}"
        raise SelectionError(message)
    kind = _dtype(text, kinds[0] if kinds else "float32")
    shape = [int(s) for s in sizes.split(",")]
    if kind.is_floating_point and not limits:
        return torch.randn(shape, generator=generator).to(kind)
    low, high = _limits(text, limits[0] if limits else "0..2", whole=not kind.is_floating_point)
    return draw(shape, str(kind).removeprefix("torch."), low, high, generator)


def _dtype(text: str, name: str) -> torch.dtype:
    kind = getattr(torch, name, None)
    if not isinstance(kind, torch.dtype) or kind.is_complex:
        message = (
            f"in the input '{text}', '{name}' is no type; such as float32, float16, int64, bool"
        )
        raise SelectionError(message)
    return kind


def _limits(text: str, limits: str, *, whole: bool) -> tuple[float, float]:
    """Read `0..100`; between whole numbers the end is left out, as Python does."""
    low, _, high = limits.partition("..")
    try:
        first, last = (int(low), int(high) - 1) if whole else (float(low), float(high))
    except ValueError:
        first, last = 1, 0
    if first > last:
        message = f"in the input '{text}', '{limits}' is no range such as 0..100"
        raise SelectionError(message)
    return first, last
