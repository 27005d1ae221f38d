"""The store that recordings move to now, and those that they moved to under earlier settings."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ConfigurationError, RecordingElsewhere
from .finished import Place
from .store import S3Access, Store

Reopen = Callable[[Place], Store]
"""Opens the store at a place that is not the configured one. Raises ``ConfigurationError``."""


def reopening(access: S3Access) -> Reopen:
    """Open other places with this access; which server is asked, the place says."""

    def reopen(place: Place) -> Store:
        at = S3Access(place.endpoint, access.region, access.access_key, access.secret_key)
        return Store.open(place.url, at, trouble=RecordingElsewhere)

    return reopen


class Stores:
    """Stores by their place. A place keeps its recordings whatever is configured later."""

    def __init__(self, configured: Store | None, reopen: Reopen | None = None) -> None:
        self.configured = configured
        self._reopen = reopen or reopening(S3Access())
        self._opened: dict[Place, Store] = {}

    def at(self, place: Place) -> Store:
        """The store at that place; nothing is sent yet.

        Raises:
            RecordingElsewhere: it cannot be opened with the present settings.
        """
        if self.configured is not None and self.configured.place == place:
            return self.configured
        store = self._opened.get(place)
        if store is None:
            try:
                store = self._reopen(place)
            except ConfigurationError:
                raise RecordingElsewhere from None
            self._opened[place] = store
        return store
