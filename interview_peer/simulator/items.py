"""The conversation's items, in order, and what a client may put among them. Plain code."""

from __future__ import annotations

from ..types import Json
from .session_config import Fault

_CONTENT = {
    "system": ("input_text",),
    "user": ("input_text", "input_audio", "input_image"),
    "assistant": ("output_text",),
}
_REQUIRED = {
    "message": ("role", "content"),
    "function_call": ("name", "arguments"),
    "function_call_output": ("call_id", "output"),
}
MAX_ITEMS = 10_000


class ItemList:
    """Items by id and in conversation order. Lengths of audio are kept beside, in milliseconds."""

    def __init__(self) -> None:
        self._order: list[str] = []
        self._items: dict[str, Json] = {}
        self.audio_ms: dict[str, int] = {}

    @property
    def last_id(self) -> str | None:
        """Id of the newest item in conversation order."""
        return self._order[-1] if self._order else None

    def get(self, item_id: object) -> Json | None:
        """The item of this id, or None for anything unknown, odd types included."""
        return self._items.get(item_id) if isinstance(item_id, str) else None

    def append(self, item: Json) -> str | None:
        """Add at the end; returns the id of the item before it."""
        previous = self.last_id
        self._order.append(item["id"])
        self._items[item["id"]] = item
        return previous

    def insert(self, item: Json, after: object) -> str | None:
        """Add after an item, ``"root"`` (first) or None (last). Raises Fault for an unknown id."""
        if item["id"] in self._items:
            message = f"Error adding item: the item with id '{item['id']}' already exists."
            raise Fault("item_create_duplicate_item_id", message, "item.id")
        if len(self._order) >= MAX_ITEMS:
            raise Fault("invalid_value", "The conversation holds too many items.", "item")
        if after is None:
            return self.append(item)
        if after == "root":
            position = 0
        elif self.get(after) is not None:
            position = self._order.index(str(after)) + 1
        else:
            message = f"Error adding item: the previous item with id '{after}' does not exist."
            raise Fault("item_create_invalid_previous_item_id", message, "previous_item_id")
        self._order.insert(position, item["id"])
        self._items[item["id"]] = item
        return self._order[position - 1] if position else None

    def replace(self, item: Json) -> str | None:
        """Put a finished item in the place of its first form; returns the id before it.

        A client may have deleted it in between: then nothing is put back.
        """
        if item["id"] not in self._items:
            return None
        self._items[item["id"]] = item
        position = self._order.index(item["id"])
        return self._order[position - 1] if position else None

    def remove(self, item_id: str) -> None:
        """Forget an item; KeyError if there is none."""
        del self._items[item_id]
        self._order.remove(item_id)
        self.audio_ms.pop(item_id, None)


def check_item(item: object) -> Json:
    """Return a client's item if it may be created. Raises Fault."""
    if not isinstance(item, dict):
        raise Fault("missing_required_parameter", "Missing required parameter: 'item'.", "item")
    kind = item.get("type")
    if not isinstance(kind, str) or kind not in _REQUIRED:
        names = ", ".join(f"'{name}'" for name in _REQUIRED)
        message = f"Invalid value: '{kind}'. Supported values are: {names}."
        raise Fault("invalid_value", message, "item.type")
    for name in _REQUIRED[kind]:
        if name not in item:
            message = f"Missing required parameter: 'item.{name}'."
            raise Fault("missing_required_parameter", message, f"item.{name}")
    if not isinstance(item.get("id", ""), str):
        raise Fault("invalid_type", "Invalid type for 'item.id': expected a string.", "item.id")
    if kind == "message":
        _check_content(item)
    return item


def _check_content(item: Json) -> None:
    role = item["role"]
    if not isinstance(role, str) or role not in _CONTENT:
        message = f"Invalid value: '{role}'. Supported values are: 'system', 'user', 'assistant'."
        raise Fault("invalid_value", message, "item.role")
    content = item["content"]
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        message = "Invalid type for 'item.content': expected an array of objects."
        raise Fault("invalid_type", message, "item.content")
    for number, part in enumerate(content):
        if part.get("type") not in _CONTENT[role]:
            names = ", ".join(f"'{name}'" for name in _CONTENT[role])
            message = f"Invalid value: '{part.get('type')}'. Supported values are: {names}."
            raise Fault("invalid_value", message, f"item.content[{number}].type")
