"""One item of each kind that a client may create; a message is a message without saying so."""

from __future__ import annotations

from interview_peer.types import Json

ITEMS: list[Json] = [
    {"role": "system", "content": [{"type": "input_text", "text": "x"}]},
    {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
    {"role": "user", "content": [{"type": "input_audio", "audio": "AAAA"}]},
    {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png,x"}]},
    {"role": "assistant", "content": [{"type": "output_text", "text": "x"}]},
    {"type": "function_call", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_1", "output": "{}"},
    {
        "type": "mcp_list_tools",
        "server_label": "s",
        "tools": [{"name": "t", "input_schema": {}}],
    },
    {"type": "mcp_call", "server_label": "s", "name": "f", "arguments": "{}"},
    {"type": "mcp_approval_request", "server_label": "s", "name": "f", "arguments": "{}"},
    {"type": "mcp_approval_response", "approval_request_id": "r", "approve": True},
]
