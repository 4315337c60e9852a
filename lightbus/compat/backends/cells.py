"""What the cells of Celery's database tables hold: values by the result serializer, or pickles. Pure.

Celery 5.7 writes every value by `result_serializer`, and reads the pickles of older ones too. Celery before 5.7 pickles
the `result` cells whatever the serializer is, and writes only `args` and `kwargs` by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...core.errors import DecodeError
from ..results import exception_triple, uncompressed
from ..serializers import Codec, accepts
from . import pickles


@dataclass(frozen=True, slots=True)
class Cells:
    """How values become cells, and cells values.

    Attributes:
        codec: the result serializer, and what may be read.
        pickled: write the `result` cells for readers before Celery 5.7.
    """

    codec: Codec
    pickled: bool

    def of_result(self, value: object) -> bytes | None:
        """The `result` cell of a task."""
        if not self.pickled:
            return self.codec.dumps(value)
        return None if value is None else pickles.dumps(value)

    def of_group(self, result: Sequence[Any]) -> bytes:
        """The `result` cell of a saved group; `result` is its tuple."""
        return pickles.dumps_group(result) if self.pickled else self.codec.dumps(result)

    def of(self, value: object) -> bytes:
        """Any other cell."""
        return self.codec.dumps(value)

    def value(self, cell: bytes | None) -> Any:
        """What a cell holds, whichever Celery wrote it. An exception is its triple.

        Raises:
            DecodeError: it is of another serializer, or a pickle of what must not be unpickled.
        """
        if cell is None:
            return None
        data = uncompressed(bytes(cell))
        if data.startswith(pickles.MARK) and len(data) > 1:  # a single such byte is an empty dict by msgpack
            found = pickles.loads(data, any_class=accepts(pickles.CONTENT_TYPE, self.codec.accept))
        else:
            try:
                found = self.codec.loads(data)
            except ValueError as error:
                raise DecodeError(
                    f"a result in the database is neither {self.codec.name} nor a pickle: it {error}; "
                    "set result_serializer as where it is written"
                ) from error
        return exception_triple(found) if isinstance(found, BaseException) else found
