"""What the code says of itself, for those who read it elsewhere: in schemas, lists and help texts."""

import ast
import functools
import inspect
import re
import sys
from dataclasses import dataclass
from itertools import pairwise

from pydantic import BaseModel

_SOURCE = "Source: "


@dataclass(frozen=True, slots=True)
class Description:
    """The docstring of a class, in parts."""

    summary: str
    """Its first sentence."""
    text: str
    """All of it but the source: paragraphs with an empty line between them."""
    source: str | None
    """The publication that it names."""


def describe(documented: type) -> Description:
    """Return what the docstring of a class itself says; nothing, if it has none of its own."""
    paragraphs = [
        prose(part) for part in inspect.cleandoc(documented.__dict__.get("__doc__") or "").split("\n\n")
    ]
    sources = [part.removeprefix(_SOURCE) for part in paragraphs if part.startswith(_SOURCE)]
    text = "\n\n".join(part for part in paragraphs if part and not part.startswith(_SOURCE))
    first = re.split(r"(?<=\.)\s", text, maxsplit=1)[0].rstrip(".")
    return Description(first, text, sources[0] if sources else None)


def field_descriptions(model: type[BaseModel], base: type[BaseModel]) -> dict[str, str]:
    """Return what the strings below the fields of a model say, and of those of its ancestors from a base on.

    Pydantic can do this by itself, but while it makes a class: every import would parse the source.
    """
    found: dict[str, str] = {}
    for ancestor in reversed([each for each in model.__mro__ if issubclass(each, base)]):
        definition = _classes_of(ancestor.__module__).get(ancestor.__name__)
        body = definition.body if definition is not None else []
        for field, below in pairwise(body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    found[name] = prose(text)
    return found


@functools.cache
def _classes_of(module: str) -> dict[str, ast.ClassDef]:
    """Return the classes of a module by name; none where there is no file, as in an interpreter."""
    try:
        source = inspect.getsource(sys.modules[module])
    except (OSError, TypeError, KeyError):
        return {}
    return {each.name: each for each in ast.walk(ast.parse(source)) if isinstance(each, ast.ClassDef)}


def prose(docstring: str) -> str:
    """Return a docstring as one paragraph, with single backticks."""
    return re.sub(r"`+", "`", " ".join(inspect.cleandoc(docstring).split()))
