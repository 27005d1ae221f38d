"""The conversation's items, in order, and what a client may put among them. Plain code."""

from __future__ import annotations

from typing import Any

from ..types import Json
from .checks import (
    Check,
    Fault,
    fields,
    is_anything,
    is_boolean,
    is_object,
    is_text,
    list_of,
    missing,
    one_of,
    or_null,
)

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
        raise missing("item")
    kind = item.get("type")
    one_of("message", *_KINDS)(kind, "item.type")
    if kind == "message":
        for name in ("role", "content"):
            if name not in item:
                raise missing(f"item.{name}")
        role = item["role"]
        one_of(*_PARTS)(role, "item.role")
        parts = _PARTS[role]
        fields(_COMMON | {"role": is_text, "content": list_of(_part_of(parts))})(item, "item")
    else:
        known, required = _KINDS[str(kind)]
        fields(_COMMON | known, required)(item, "item")
    return item


def has_status(item: Json) -> bool:
    """Whether items of this type carry a status; those about other servers' tools do not."""
    return not item["type"].startswith("mcp_")


def _part_of(parts: dict[str, dict[str, Check]]) -> Check:
    def check(value: Any, path: str) -> None:
        is_object(value, path)
        one_of(*parts)(value.get("type"), f"{path}.type")
        known = parts[value["type"]]
        # All a part is made of is required but what may be told or left out.
        required = tuple(name for name in known if name not in _OPTIONAL)
        fields({"type": is_text} | known, required)(value, path)

    return check


_TEXT: dict[str, Check] = {"text": is_text}
_OPTIONAL = {"audio", "transcript", "detail"}
_PARTS: dict[str, dict[str, dict[str, Check]]] = {
    "system": {"input_text": _TEXT},
    "user": {
        "input_text": _TEXT,
        "input_audio": {"audio": is_text, "transcript": or_null(is_text)},
        "input_image": {"image_url": is_text, "detail": one_of("auto", "low", "high")},
    },
    "assistant": {"output_text": _TEXT},
}
"""Content parts by role. An assistant's audio cannot be created."""

_COMMON: dict[str, Check] = {
    "type": is_text,
    "id": is_text,
    "object": one_of("realtime.item"),
    "status": one_of("completed", "incomplete", "in_progress"),
}
_LISTED_TOOL = fields(
    {
        "name": is_text,
        "description": or_null(is_text),
        "input_schema": is_anything,
        "annotations": is_anything,
    },
    ("name", "input_schema"),
)
_CALL: dict[str, Check] = {"server_label": is_text, "name": is_text, "arguments": is_text}
_KINDS: dict[str, tuple[dict[str, Check], tuple[str, ...]]] = {
    "function_call": (
        {"name": is_text, "arguments": is_text, "call_id": is_text},
        ("name", "arguments"),
    ),
    "function_call_output": (
        {"call_id": is_text, "output": is_text},
        ("call_id", "output"),
    ),
    "mcp_list_tools": (
        {"server_label": is_text, "tools": list_of(_LISTED_TOOL)},
        ("server_label", "tools"),
    ),
    "mcp_call": (
        _CALL
        | {
            "approval_request_id": or_null(is_text),
            "output": or_null(is_text),
            "error": or_null(is_object),
        },
        tuple(_CALL),
    ),
    "mcp_approval_request": (_CALL, tuple(_CALL)),
    "mcp_approval_response": (
        {"approval_request_id": is_text, "approve": is_boolean, "reason": or_null(is_text)},
        ("approval_request_id", "approve"),
    ),
}
"""Every other type: its fields, and which of them must be there."""
