"""The one error of this package."""

from __future__ import annotations


class CronError(ValueError):
    """An expression, or an argument beside it, that cannot be used; nothing is guessed in its place."""

    def __init__(self, expression: str, field: str, value: str, allowed: str) -> None:
        super().__init__(f"{expression!r}: {field} cannot be {value!r}; allowed: {allowed}")
        self.expression = expression
        self.field = field
        self.value = value
        self.allowed = allowed

    def __reduce__(self) -> tuple[type[CronError], tuple[str, str, str, str]]:
        # the default would pass the finished message as the only argument, and unpickling would fail
        return type(self), (self.expression, self.field, self.value, self.allowed)
