"""An answer that a test gives in place of a call's owner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..core.errors import ApiError
from ..core.message import CallMessage, ReplyMessage
from ..core.schema import CallSchema, Problem, encode_problem, problem_of_declared


@dataclass(frozen=True, slots=True)
class Stub:
    """Answers a call by `function`, which gets its arguments by name; what it raises is what the owner has raised."""

    schema: CallSchema
    function: Callable[..., object]

    def reply_to(self, call: CallMessage) -> ReplyMessage:
        """The answer, or the error, as it goes to the caller."""
        try:
            result = self.function(**self.schema.decode_arguments(call.payload))
            return ReplyMessage(call_id=call.origin.id, payload=self.schema.encode_result(result), failed=False)
        except Exception as error:  # noqa: BLE001 - what a stub raises is what its owner would have raised
            return ReplyMessage(call_id=call.origin.id, payload=encode_problem(self._problem(error)), failed=True)

    def _problem(self, error: Exception) -> Problem:
        kind = type(error).__name__
        if isinstance(error, ApiError) and kind in self.schema.rpc.errors:
            return problem_of_declared(error)
        return Problem(type=f"error:{kind}", title=kind, detail=f"{kind}: {error}")
