"""The simulator's admin path: its settings and its running calls, read and changed over HTTP.

Open to programs of this machine alone, unless the simulator has a key: then to whoever has it.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable
from typing import Any, Protocol

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from ..types import Json
from .call import Call
from .refusals import Refusal, json_body
from .settings import FIXED, SimulatorSettings, group_of

PREFIX = "/_simulator"


class Administered(Protocol):
    """What the admin path looks at and changes."""

    settings: SimulatorSettings

    @property
    def calls(self) -> dict[str, Call]:
        """The running calls by their ids."""

    def ended_calls(self) -> list[Json]:
        """The last calls that ended, each with its ``id`` and ``reason``, oldest first."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Expire(_Body):
    """``silently``: without the error ``session_expired``; as the settings say if not given."""

    silently: bool | None = None


class Error(_Body):
    """An ``error`` event's code and message."""

    code: str = "server_error"
    message: str = "The simulator was told to fail here."


class Message(_Body):
    """A message to the client as it is; with ``binary`` the text's UTF-8 as a binary frame."""

    message: str
    binary: bool = False


class Nothing(_Body):
    """Of actions that need no more words."""


def _expire(call: Call, body: Any) -> None:
    silently = call.settings.expiry == "silent" if body.silently is None else body.silently
    call.expire(silently=silently)


def _send(call: Call, body: Any) -> None:
    call.send(body.message.encode() if body.binary else body.message)


ACTIONS: dict[str, tuple[type[_Body], Callable[[Call, Any], None]]] = {
    "expire": (Expire, _expire),
    "drop": (Nothing, lambda call, body: call.drop()),
    "hangup": (Nothing, lambda call, body: call.end("hung up by the admin path")),
    "error": (Error, lambda call, body: call.error(body.code, body.message)),
    "malformed": (Nothing, lambda call, body: call.send_malformed()),
    "binary": (Nothing, lambda call, body: call.send_binary()),
    "send": (Message, _send),
}
"""What can be done to a running call, and the body that says more."""


class Admin:
    """The routes. They act at once; changed settings count from the next request and call on."""

    def __init__(self, simulator: Administered) -> None:
        self._simulator = simulator

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add every route."""
        router.add_get(f"{PREFIX}/schema", self._explain)
        router.add_get(f"{PREFIX}/settings", self._show)
        router.add_put(f"{PREFIX}/settings", self._replace)
        router.add_patch(f"{PREFIX}/settings", self._change)
        router.add_get(f"{PREFIX}/calls", self._list)
        router.add_post(f"{PREFIX}/calls/{{call_id}}/{{action}}", self._act)

    def check(self, request: web.Request, key: str) -> None:
        """Refuse whoever may not come here. ``key`` is the request's bearer."""
        expected = self._simulator.settings.api_key
        if expected is not None:
            if not hmac.compare_digest(key.encode(), expected.encode()):
                raise Refusal(401, "invalid_api_key", "The admin path asks for the key.")
            return
        # A page in a browser of this machine is not this machine's user, and a proxy here may
        # speak for anybody.
        foreign = {"Origin", "Forwarded", "X-Forwarded-For"} & set(request.headers)
        if foreign or not _is_loopback(request.remote) or not _is_loopback(request.url.host):
            message = "Without a key the admin path is open to this machine's own address alone."
            raise Refusal(403, "not_allowed", message)

    async def _explain(self, request: web.Request) -> web.Response:
        return web.json_response(schema())

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(self._told())

    async def _replace(self, request: web.Request) -> web.Response:
        fixed = {name: getattr(self._simulator.settings, name) for name in FIXED}
        return await self._set(request, fixed)

    async def _change(self, request: web.Request) -> web.Response:
        return await self._set(request, dict(self._simulator.settings))

    async def _set(self, request: web.Request, before: Json) -> web.Response:
        body = await json_body(request)
        if not isinstance(body, dict):
            raise Refusal(400, "invalid_type", "Expected an object of settings.")
        for name in FIXED & set(body):
            message = f"'{name}' is set when the simulator starts and cannot be changed."
            raise Refusal(400, "invalid_parameter", message, name)
        self._simulator.settings = _validated(SimulatorSettings, before | body)
        return web.json_response(self._told())

    def _told(self) -> Json:
        settings = self._simulator.settings
        return {name: value for name, value in settings if name not in FIXED}

    async def _list(self, request: web.Request) -> web.Response:
        calls = [call.status() for call in self._simulator.calls.values()]
        return web.json_response({"calls": calls, "ended": self._simulator.ended_calls()})

    async def _act(self, request: web.Request) -> web.Response:
        name = request.match_info["action"]
        if name not in ACTIONS:
            known = ", ".join(ACTIONS)
            raise Refusal(404, "unknown_action", f"There is no action '{name}'; there are {known}.")
        call = self._simulator.calls.get(request.match_info["call_id"])
        if call is None:
            raise Refusal(404, "call_id_not_found", "No call of this id is running.")
        kind, act = ACTIONS[name]
        body = await json_body(request)
        if body is not None and not isinstance(body, dict):
            raise Refusal(400, "invalid_type", "Expected an object.")
        wanted = _validated(kind, body or {})
        if name not in ("drop", "hangup", "expire") and call.status()["phase"] != "open":
            raise Refusal(409, "channel_not_open", "The call's event channel is not open.")
        act(call, wanted)
        return web.json_response(call.status())


def schema() -> Json:
    """Every setting that can be changed: its group, meaning and default, by name."""
    defaults = SimulatorSettings()
    return {
        name: {
            "group": group_of(name),
            "description": field.description,
            "default": getattr(defaults, name),
        }
        for name, field in SimulatorSettings.model_fields.items()
        if name not in FIXED
    }


def _validated(model: type[Any], values: Json) -> Any:
    """Make the model or refuse with its first fault."""
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = ".".join(map(str, first["loc"])) or None
        code, message = "invalid_value", first["msg"]
        if first["type"] == "extra_forbidden":
            code, message = "unknown_parameter", f"Unknown parameter: '{param}'."
        elif first["type"] == "missing":
            code, message = "missing_required_parameter", f"Missing required parameter: '{param}'."
        raise Refusal(400, code, message, param) from None


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
