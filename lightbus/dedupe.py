"""Duplicates are not handled again: what a listener with `dedupe=` does before and after its handler.

Before, the message is claimed in a store that all workers share; a thread keeps the claim while the handler runs. After
success it is marked as done; after a failure the claim is given back, for the retry.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .core.claims import ClaimStore, ClaimStoreUnavailable, Done, Held, Taken, duration_seconds
from .core.errors import DeclarationError
from .core.outcome import Ack, DeadLetter, Outcome, Retry
from .forks import renewed_after_fork

logger = logging.getLogger("lightbus.dedupe")

LEASE_SECONDS = 30.0
#: A message waits that long when the store is away. It is no attempt.
STORE_AWAY_SECONDS = 5.0
#: A message whose handler took its process down that often is parked, as by `--max-crashes`.
MAX_TAKES = 3
_CLEAN_EVERY = 500  #: claims


@dataclass(frozen=True, slots=True)
class Dedupe:
    """How a listener knows a duplicate, and for how long.

    Attributes:
        keep_seconds: a message that was handled is known for so long; longer than a copy of it may take to arrive.
        mark: `after`: done when the handler has returned, so a crash in between handles it again. `before`: done when
            it begins, so it is never handled twice, and a crash loses it.
        key: what makes two events the same, from the event; default: the message's id.
    """

    keep_seconds: float
    mark: Literal["after", "before"] = "after"
    key: Callable[[Any], str] | None = None

    def __post_init__(self) -> None:
        if not self.keep_seconds > 0:
            raise DeclarationError(f"keep_seconds is above 0, got {self.keep_seconds!r}")
        if self.mark not in ("after", "before"):
            raise DeclarationError(f"mark is 'after' or 'before', got {self.mark!r}")

    @classmethod
    def of(cls, given: str | Dedupe) -> Dedupe:
        """From a duration such as `"7d"`.

        Raises:
            DeclarationError: it is none.
        """
        return cls(duration_seconds(given)) if isinstance(given, str) else given


@dataclass(frozen=True, slots=True)
class Claimed:
    """The claim of one message that is being handled. `state` is the endpoint's."""

    state: object
    key: str
    holder: str
    dedupe: Dedupe


class Claims:
    """The claims of one app's listeners. Thread-safe.

    Args:
        store: see `ClaimStore`.
        now: Unix time in seconds.
    """

    def __init__(self, store: ClaimStore, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._count = 0
        self._reset()
        renewed_after_fork(self)

    def renew_after_fork(self) -> None:
        """See `Renewable`: a child holds nothing that its parent holds."""
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._held: set[tuple[str, str]] = set()
        self._keeper: threading.Thread | None = None

    def begin(self, state: object, key: str, dedupe: Dedupe, attempt: int) -> Claimed | Outcome:
        """Claim a message before its handler; or what becomes of it when it must not be handled now."""
        holder = f"{os.getpid()}-{uuid.uuid4().hex}"
        try:
            found = self._store.claim(key, holder, now=self._now(), lease_seconds=LEASE_SECONDS)
            if dedupe.mark == "before" and isinstance(found, Taken):
                self._store.done(key, holder, now=self._now(), keep_seconds=dedupe.keep_seconds)
        except ClaimStoreUnavailable as error:
            logger.warning("nothing is handled without a claim key=%s error=%s", key, error)
            return Retry(STORE_AWAY_SECONDS, attempt, str(error))
        match found:
            case Done():
                return Ack("duplicate")
            case Held(seconds):
                # Whoever has it may fail, or be dead: then this copy is the one that is handled.
                return Retry(min(seconds, LEASE_SECONDS) + 0.1, attempt, "another copy of it is being handled")
            case Taken(takes) if takes > MAX_TAKES:
                self._release(key, holder)
                return DeadLetter("worker-lost", f"its process died under it {takes - 1} times", takes - 1)
        claimed = Claimed(state, key, holder, dedupe)
        if dedupe.mark == "after":
            self._keep(claimed)
        return claimed

    def succeed(self, claimed: Claimed) -> None:
        """Its handler has returned."""
        if claimed.dedupe.mark == "before":
            return
        self._let_go(claimed)
        try:
            self._store.done(claimed.key, claimed.holder, now=self._now(), keep_seconds=claimed.dedupe.keep_seconds)
        except ClaimStoreUnavailable as error:
            # The handler has run: handling the message again is what this is here to avoid.
            logger.error("a copy would be handled again: the end was not noted key=%s error=%s", claimed.key, error)

    def fail(self, claimed: Claimed) -> None:
        """Its handler has failed: its retry, or its replay, may claim it anew."""
        self._let_go(claimed)
        self._release(claimed.key, claimed.holder)

    def close(self) -> None:
        """Disconnect; what is held stays so until its lease ends."""
        self._store.close()

    def _release(self, key: str, holder: str) -> None:
        try:
            self._store.release(key, holder)
        except ClaimStoreUnavailable as error:  # its lease ends by itself
            logger.warning("a claim was not given back key=%s error=%s", key, error)

    def _keep(self, claimed: Claimed) -> None:
        with self._changed:
            self._held.add((claimed.key, claimed.holder))
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._run, name="lightbus-claims", daemon=True)
                self._keeper.start()

    def _let_go(self, claimed: Claimed) -> None:
        with self._changed:
            self._held.discard((claimed.key, claimed.holder))
            self._count += 1
            if not self._count % _CLEAN_EVERY:
                self._changed.notify()

    def _run(self) -> None:
        """Extend the leases of what is held, and remove what has ended, until nothing was held for a while."""
        while True:
            with self._changed:
                self._changed.wait(LEASE_SECONDS / 3)
                held = list(self._held)
                cleans = self._count >= _CLEAN_EVERY
                if cleans:
                    self._count = 0
                if not held and not cleans:
                    self._keeper = None
                    return
            try:
                for key, holder in held:
                    self._store.keep(key, holder, now=self._now(), lease_seconds=LEASE_SECONDS)
                if cleans:
                    self._store.clean(now=self._now())
            except ClaimStoreUnavailable as error:
                logger.warning("claims could not be kept count=%d error=%s", len(held), error)
