"""What is known of one setting of Celery. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["works", "works differently", "no effect", "refused"]

WORKS: Verdict = "works"
DIFFERS: Verdict = "works differently"
NO_EFFECT: Verdict = "no effect"
REFUSED: Verdict = "refused"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of Celery.

    Attributes:
        default: Celery's own, as of 5.7.
        verdict: of `refused` ones only values other than the default, those in `also` and None are.
        note: how it differs, or what to use instead.
        old: its upper-case name of before Celery 4, where that is not just the name in upper case.
        test: which test holds it.
    """

    name: str
    default: Any
    verdict: Verdict
    note: str = ""
    old: str = ""
    test: str = ""
    also: tuple[object, ...] = ()

    @property
    def old_name(self) -> str:
        return self.old or self.name.upper()

    def refuses(self, value: object) -> bool:
        """Whether that value would change what messages mean, and cannot be honoured."""
        if self.verdict != REFUSED or value is None or value == self.default or value in self.also:
            return False
        return bool(value) or bool(self.default)
