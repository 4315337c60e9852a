"""`result.graph`: which task sent which, as a graph without cycles. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TextIO


class DependencyGraph:
    """Nodes, each with those that it sent. The names are Celery's."""

    def __init__(self) -> None:
        self.adjacent: dict[Any, list[Any]] = {}

    def add_arc(self, obj: Any) -> None:
        """Add a node."""
        self.adjacent.setdefault(obj, [])

    def add_edge(self, a: Any, b: Any) -> None:
        """Note that `a` sent `b`; both are nodes."""
        self.adjacent[a].append(b)

    def edges(self) -> list[Any]:
        """The nodes that sent something."""
        return [node for node, sent in self.adjacent.items() if sent]

    def valency_of(self, obj: Any) -> int:
        """How many nodes hang on this one, itself included."""
        return 1 + sum(self.valency_of(one) for one in self.adjacent.get(obj, ()))

    def topsort(self) -> list[Any]:
        """All nodes, each behind those that it sent.

        Raises:
            ValueError: they go round in a circle.
        """
        done: dict[Any, bool] = {}
        order: list[Any] = []

        def visit(node: Any) -> None:
            if done.get(node):
                return
            if node in done:
                raise ValueError(f"{node!r} is among what it sent")
            done[node] = False
            for one in self.adjacent.get(node, ()):
                visit(one)
            done[node] = True
            order.append(node)

        for node in self.adjacent:
            visit(node)
        return order

    def to_dot(self, fh: TextIO) -> None:
        """Write it in the language of Graphviz."""
        lines = [f'"{node}" -> "{one}"' for node, sent in self.adjacent.items() for one in sent]
        alone = [f'"{node}"' for node in self.adjacent]
        fh.write("digraph dependencies {\n" + "".join(f"    {line};\n" for line in [*alone, *lines]) + "}\n")

    def items(self) -> Any:
        return self.adjacent.items()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.adjacent)

    def __getitem__(self, node: Any) -> list[Any]:
        return self.adjacent[node]

    def __len__(self) -> int:
        return len(self.adjacent)

    def __contains__(self, obj: object) -> bool:
        return obj in self.adjacent

    def __repr__(self) -> str:
        return "\n".join(f"{node}({len(sent)}): {', '.join(map(str, sent))}" for node, sent in self.adjacent.items())
