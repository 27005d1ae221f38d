"""Checks of what a client sent, put together from small ones. Plain code: values in, Fault out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Check = Callable[[Any, str], None]
"""Takes a value and its path in the message; raises Fault."""


class Fault(Exception):
    """A client's mistake, in the service's words: what an ``error`` event or a 400 body says."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def invalid_value(value: Any, path: str, supported: list[str]) -> Fault:
    """The fault of a value that is none of the supported ones."""
    names = ", ".join(f"'{name}'" for name in supported)
    message = f"Invalid value: '{value}'. Supported values are: {names}."
    return Fault("invalid_value", message, path)


def missing(path: str) -> Fault:
    """The fault of a field that has to be there."""
    return Fault("missing_required_parameter", f"Missing required parameter: '{path}'.", path)


def wrong_type(path: str, expected: str) -> Fault:
    """The fault of a value of another type than ``expected``, which has its article."""
    return Fault("invalid_type", f"Invalid type for '{path}': expected {expected}.", path)


def is_object(value: Any, path: str) -> None:
    """Accept JSON objects."""
    if not isinstance(value, dict):
        raise wrong_type(path, "an object")


def is_text(value: Any, path: str) -> None:
    """Accept strings."""
    if not isinstance(value, str):
        raise wrong_type(path, "a string")


def is_boolean(value: Any, path: str) -> None:
    """Accept true and false."""
    if not isinstance(value, bool):
        raise wrong_type(path, "a boolean")


def is_anything(value: Any, path: str) -> None:
    """Accept: a field whose inside the simulator has no use for."""


def one_of(*supported: str) -> Check:
    """Some strings and no other value."""

    def check(value: Any, path: str) -> None:
        if value not in supported:
            raise invalid_value(value, path, list(supported))

    return check


def number(low: float, high: float) -> Check:
    """Numbers in a range, its ends included."""

    def check(value: Any, path: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong_type(path, "a number")
        if not low <= value <= high:
            message = f"Invalid '{path}': expected a value from {low:g} to {high:g}."
            raise Fault("invalid_value", message, path)

    return check


def whole(low: int, high: int) -> Check:
    """Whole numbers in a range."""
    in_range = number(low, high)

    def check(value: Any, path: str) -> None:
        in_range(value, path)
        if not isinstance(value, int):
            raise wrong_type(path, "an integer")

    return check


def or_null(check: Check) -> Check:
    """What the check accepts, or null."""

    def check_or_null(value: Any, path: str) -> None:
        if value is not None:
            check(value, path)

    return check_or_null


def list_of(check: Check) -> Check:
    """Arrays of what the check accepts."""

    def check_list(value: Any, path: str) -> None:
        if not isinstance(value, list):
            raise wrong_type(path, "an array")
        for position, element in enumerate(value):
            check(element, f"{path}[{position}]")

    return check_list


def fields(known: dict[str, Check], required: tuple[str, ...] = ()) -> Check:
    """Objects with these fields and no other."""

    def check(value: Any, path: str) -> None:
        is_object(value, path)
        for name in required:
            if name not in value:
                raise missing(f"{path}.{name}")
        for name, inner in value.items():
            where = f"{path}.{name}"
            if name not in known:
                raise Fault("unknown_parameter", f"Unknown parameter: '{where}'.", where)
            known[name](inner, where)

    return check
