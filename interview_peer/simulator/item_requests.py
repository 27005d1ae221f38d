"""What a client may do with the conversation's items: create, retrieve, truncate, delete."""

from __future__ import annotations

import base64

from ..types import Json
from .checks import Fault
from .items import ItemList, check_item, has_status
from .outbox import Outbox
from .playout import Playout
from .settings import SimulatorSettings

BYTES_PER_MS = 48
"""Of 24 kHz samples of 16 bits, as which audio is given out."""


class ItemRequests:
    """Answers the ``conversation.item.*`` events of a client. Raises Fault for a mistake."""

    def __init__(
        self, settings: SimulatorSettings, items: ItemList, playout: Playout, outbox: Outbox
    ) -> None:
        self._settings = settings
        self._items = items
        self._playout = playout
        self._outbox = outbox

    def create(self, event: Json) -> None:
        """Add an item where the client says."""
        item = dict(check_item(event.get("item")))
        item.setdefault("id", self._outbox.make_id("item_"))
        if has_status(item):
            item["status"] = "completed"
        if item["type"] == "function_call":
            item.setdefault("call_id", self._outbox.make_id("call_"))
        item.pop("object", None)
        previous = self._items.insert(item, event.get("previous_item_id"))
        self._outbox.item_events(item, previous)

    def retrieve(self, event: Json) -> None:
        """Tell an item, with its audio if it has some."""
        item = self._existing(event, "retriev")
        length_ms = self._items.audio_ms.get(item["id"])
        if self._settings.retrieve_audio and length_ms is not None:
            length_ms = max(length_ms, self._settings.retrieved_audio_ms)
            audio = base64.b64encode(bytes(BYTES_PER_MS * length_ms)).decode()
            item = item | {"content": [part | {"audio": audio} for part in item["content"]]}
        self._outbox.emit("conversation.item.retrieved", {"item": item})

    def truncate(self, event: Json) -> None:
        """Shorten a reply's sound."""
        item = self._existing(event, "truncat")
        end_ms = event.get("audio_end_ms")
        length_ms = self._items.audio_ms.get(item["id"])
        if item.get("role") != "assistant" or length_ms is None:
            raise Fault("invalid_value", "Only assistant audio can be truncated.", "item_id")
        if event.get("content_index", 0) != 0:
            raise Fault("invalid_value", "The item has one content part: 0.", "content_index")
        if isinstance(end_ms, bool) or not isinstance(end_ms, int) or not 0 <= end_ms <= length_ms:
            message = f"Audio content of {length_ms}ms is shorter than the wanted end."
            raise Fault("invalid_value", message, "audio_end_ms")
        self._outbox.emit_all([self._playout.truncated(item["id"], end_ms)])

    def delete(self, event: Json) -> None:
        """Forget an item."""
        item = self._existing(event, "delet")
        self._items.remove(item["id"])
        self._outbox.emit("conversation.item.deleted", {"item_id": item["id"]})

    def _existing(self, event: Json, verb: str) -> Json:
        item = self._items.get(event.get("item_id"))
        if item is None:
            message = (
                f"Error {verb}ing item: the item with id '{event.get('item_id')}' does not exist."
            )
            raise Fault(f"item_{verb}e_invalid_item_id", message, "item_id")
        return item
