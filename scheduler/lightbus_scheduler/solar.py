"""A schedule by the sun: an event like sunset at a place, on the days that have it.

Needs the package astral, which computes it. It agrees with Celery's `solar`, which takes ephem, to within two minutes
below 60 degrees of latitude; near the poles the sun moves along the horizon, and the two may differ by more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any

from .errors import ScheduleError

#: Name of the event, as in Celery, to whether the sun rises then, and its depression below the horizon in degrees.
_ABOVE_OR_BELOW: dict[str, tuple[bool, float]] = {
    "dawn_astronomical": (True, 18.0),
    "dawn_nautical": (True, 12.0),
    "dawn_civil": (True, 6.0),
    "sunrise": (True, 0.0),
    "sunset": (False, 0.0),
    "dusk_civil": (False, 6.0),
    "dusk_nautical": (False, 12.0),
    "dusk_astronomical": (False, 18.0),
}
EVENTS = (*list(_ABOVE_OR_BELOW)[:4], "solar_noon", *list(_ABOVE_OR_BELOW)[4:])

_DAY = timedelta(days=1)
#: In a year every event that a place has comes again; where it does not, it never does.
_DAYS_LOOKED_AT = 400


@dataclass(frozen=True, slots=True)
class Solar:
    """The moments of `event`, to the second; none on a day of the polar night or day that lacks it.

    Attributes:
        event: one of `EVENTS`.
        latitude: degrees, north is positive.
        longitude: degrees, east is positive.
    """

    event: str
    latitude: float
    longitude: float

    def __post_init__(self) -> None:
        if self.event not in EVENTS:
            raise ScheduleError("solar", str(self.event), ", ".join(EVENTS))
        for name, bound in (("latitude", 90), ("longitude", 180)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not -bound <= value <= bound:
                raise ScheduleError(name, str(value), f"degrees from -{bound} to {bound}")
        _sun(self.event)

    def next_after(self, moment: datetime) -> datetime | None:
        moment = moment.astimezone(timezone.utc)
        # What astral gives for a date may lie on the days beside it, far from Greenwich.
        first = moment.date() - 2 * _DAY
        waiting: list[datetime] = []
        for at, day in self._from(first):
            if at is not None and at > moment:
                waiting.append(at)
            if waiting and day >= min(waiting).date() + 2 * _DAY:
                return min(waiting)
        return None

    def _from(self, first: date) -> Iterator[tuple[datetime | None, date]]:
        compute = _sun(self.event)
        for number in range(_DAYS_LOOKED_AT):
            try:
                day = first + number * _DAY
            except OverflowError:
                return
            try:
                at = compute(self.latitude, self.longitude, day)
            except ValueError:  # the sun does not come there on that date
                yield None, day
            else:
                yield at.replace(microsecond=0), day


def _sun(event: str) -> Callable[[float, float, date], datetime]:
    """What computes the event for latitude, longitude and a date there.

    Raises:
        ScheduleError: astral is not installed.
    """
    try:
        from astral import Observer, sun  # optional, and slow to load
    except ImportError:
        allowed = "crontab, an interval, or a moment, while the package astral is not installed"
        raise ScheduleError("solar", event, allowed) from None

    def compute(latitude: float, longitude: float, day: date) -> datetime:
        place: Any = Observer(latitude, longitude)
        # By the sun's own clock, where events are far from midnight: astral loses one that crosses it between two days.
        zone: Any = timezone(timedelta(hours=round(longitude / 15)))
        if event == "solar_noon":
            found = sun.noon(place, day, zone)
        elif event == "sunrise":
            found = sun.sunrise(place, day, zone)
        elif event == "sunset":
            found = sun.sunset(place, day, zone)
        else:
            rises, depression = _ABOVE_OR_BELOW[event]
            found = (sun.dawn if rises else sun.dusk)(place, day, depression, zone)
        return found.astimezone(timezone.utc)

    return compute
