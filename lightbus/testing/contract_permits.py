"""The part of the transport contract about permits: so many at a time for all who share the broker."""

from __future__ import annotations

import threading

from ..ports import PermitStore
from .bench import Bench, eventually


class PermitContract(Bench):
    """Where `Capabilities.permits`; elsewhere it must not be claimed."""

    def _store(self) -> PermitStore | None:
        transport = self.open()
        if not transport.capabilities.permits:
            return None
        assert isinstance(transport, PermitStore)
        return transport

    def test_so_many_permits_are_given_and_no_more_until_one_is_given_back(self) -> None:
        store, other, name = self._store(), self._store(), self.name("permits")
        if store is None or other is None:
            assert not self.open().capabilities.permits
            return
        assert store.hold_permit(name, "a", 2, lease_seconds=60.0)
        assert other.hold_permit(name, "b", 2, lease_seconds=60.0)
        assert not store.hold_permit(name, "c", 2, lease_seconds=60.0)
        assert store.hold_permit(name, "b", 2, lease_seconds=60.0), "whoever has one may keep it"
        assert other.hold_permit(self.name("permits"), "c", 1, lease_seconds=60.0), "another name is another limit"

        store.free_permit(name, "a")
        store.free_permit(name, "a")

        assert store.hold_permit(name, "c", 2, lease_seconds=60.0)
        assert not store.hold_permit(name, "a", 2, lease_seconds=60.0)

    def test_a_permit_that_nobody_keeps_is_given_to_another(self) -> None:
        store, name = self._store(), self.name("permits")
        if store is None:
            assert not self.open().capabilities.permits
            return
        assert store.hold_permit(name, "dead", 1, lease_seconds=0.3)
        assert store.hold_permit(name, "dead", 1, lease_seconds=0.3)
        eventually(lambda: store.hold_permit(name, "next", 1, lease_seconds=60.0), bool, "the end of the lease")
        assert not store.hold_permit(name, "dead", 1, lease_seconds=0.3)

    def test_of_many_who_ask_at_once_no_more_get_one_than_there_are(self) -> None:
        stores, name = [self._store() for _ in range(4)], self.name("permits")
        got: list[str] = []

        def ask(store: PermitStore, asker: int) -> None:
            for turn in range(5):
                holder = f"{asker}.{turn}"
                if store.hold_permit(name, holder, 3, lease_seconds=60.0):
                    got.append(holder)

        threads = [
            threading.Thread(target=ask, args=(store, asker)) for asker, store in enumerate(stores) if store is not None
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == (3 if threads else 0)
