"""The mutants of a module: its source with one small fault each, made by the operators of mutmut.

mutmut itself leaves decorated functions and module-level code out, and starts from a copy of the project.
Here its operators see the whole module, but for code that cannot change what the module does: annotations,
type aliases, imports and decorators.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

WITHOUT_EFFECT = (cst.Annotation, cst.Decorator, cst.Import, cst.ImportFrom)


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One fault: `new` in the place of `old`; `lines` are those of the statement around it.

    `part` is the index of the statement of the module in which it is: a class or a function, for example.
    """

    number: int
    part: int
    operator: str
    lines: range
    old: cst.CSTNode
    new: cst.CSTNode


class Mutants:
    """All mutants of a source text. A mutant's own source is made when it is asked for."""

    def __init__(self, source: str) -> None:
        wrapper = MetadataWrapper(cst.parse_module(source))
        self.source, self._module = source, wrapper.module
        self._texts = [self._module.code_for_node(part) for part in self._module.body]
        visitor = _Visitor(wrapper.resolve(PositionProvider))
        for part in self._module.body:
            part.visit(visitor)
            visitor.part += 1
        self.all = [Mutant(number, *found) for number, found in enumerate(visitor.found)]

    def mutated(self, mutant: Mutant) -> str:
        """The source with this one fault."""
        part = self._module.body[mutant.part].deep_replace(mutant.old, mutant.new)
        texts = [*self._texts]
        texts[mutant.part] = self._module.code_for_node(part)
        head, foot = (
            [self._module.code_for_node(line) for line in lines]
            for lines in (self._module.header, self._module.footer)
        )
        return "".join([*head, *texts, *foot])

    def changed_lines(self, mutant: Mutant) -> str:
        """The lines that differ, as a diff without its head."""
        texts = (self.source.splitlines(), self.mutated(mutant).splitlines())
        diff = list(difflib.unified_diff(*texts, n=0, lineterm=""))[3:]
        return "\n".join(line for line in diff if not line.startswith("@@"))


class _Visitor(cst.CSTVisitor):
    """Finds the mutants of the statements of a module, one after the other."""

    def __init__(self, places: Mapping[cst.CSTNode, Any]) -> None:
        self.found: list[tuple[int, str, range, cst.CSTNode, cst.CSTNode]] = []
        self.part = 0
        self._places = places
        self._starts: list[int] = []  # of the statements around
        self._depth = 0  # of functions and classes around

    def on_visit(self, node: cst.CSTNode) -> bool:
        if _without_effect(node) or (not self._depth and _is_type_alias(node)):
            return False
        place = self._places.get(node)
        if isinstance(node, cst.SimpleStatementLine | cst.BaseCompoundStatement):
            self._starts.append(place.start.line)
        self._depth += isinstance(node, cst.FunctionDef | cst.ClassDef)
        start = self._starts[-1]
        lines = range(start, (place.end.line if place else start) + 1)
        self.found += [(self.part, name, lines, node, new) for name, new in _changed(node)]
        return True

    def on_leave(self, node: cst.CSTNode) -> None:
        if _without_effect(node) or (not self._depth and _is_type_alias(node)):
            return
        if isinstance(node, cst.SimpleStatementLine | cst.BaseCompoundStatement):
            self._starts.pop()
        self._depth -= isinstance(node, cst.FunctionDef | cst.ClassDef)


def _changed(node: cst.CSTNode) -> Iterator[tuple[str, cst.CSTNode]]:
    for kind, operator in mutation_operators:
        if isinstance(node, kind):
            for new in operator(node):
                yield operator.__name__.removeprefix("operator_"), new


def _without_effect(node: cst.CSTNode) -> bool:
    """True for code that only type checkers read, for imports and for decorators."""
    if isinstance(node, cst.If) and isinstance(node.test, cst.Name):
        return node.test.value == "TYPE_CHECKING"
    return isinstance(node, WITHOUT_EFFECT)


def _is_type_alias(node: cst.CSTNode) -> bool:
    """True for `Name = Literal["a", "b"]` and the like."""
    return isinstance(node, cst.Assign) and isinstance(node.value, cst.Subscript)
