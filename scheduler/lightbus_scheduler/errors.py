"""The errors of this package."""

from __future__ import annotations


class ScheduleError(ValueError):
    """A value of a schedule or of an entry that cannot be used."""

    def __init__(self, field: str, value: str, allowed: str) -> None:
        super().__init__(f"{field} cannot be {value!r}; allowed: {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed

    def __reduce__(self) -> tuple[type[ScheduleError], tuple[str, ...]]:
        return type(self), (self.field, self.value, self.allowed)


class CronError(ScheduleError):
    """An expression, or an argument beside it, that cannot be used; nothing is guessed in its place."""

    def __init__(self, expression: str, field: str, value: str, allowed: str) -> None:
        super().__init__(field, value, allowed)
        self.args = (f"{expression!r}: {self.args[0]}",)
        self.expression = expression

    def __reduce__(self) -> tuple[type[CronError], tuple[str, ...]]:
        # the default would pass the finished message as the only argument, and unpickling would fail
        return type(self), (self.expression, self.field, self.value, self.allowed)


class EntryError(ScheduleError):
    """A value of an entry that cannot be used, and whose entry it is."""

    def __init__(self, entry_id: str, error: ScheduleError) -> None:
        super().__init__(error.field, error.value, error.allowed)
        self.args = (f"entry {entry_id!r}: {error}",)
        self.entry_id = entry_id
        self.error = error

    def __reduce__(self) -> tuple[type[EntryError], tuple[object, ...]]:  # type: ignore[override]
        return type(self), (self.entry_id, self.error)
