"""What the model is told of its tools, and which arguments they take."""

from __future__ import annotations

import pytest
from openai.types.realtime import RealtimeFunctionTool

from interview_peer.core.tools import (
    BUILT_IN,
    END_INTERVIEW,
    BadArguments,
    arguments_of,
    definitions,
)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_definition_is_what_the_service_takes(name: str) -> None:
    (definition,) = definitions([name])
    read = RealtimeFunctionTool.model_validate(definition)
    assert not read.model_extra
    assert (read.type, read.name) == ("function", name)
    assert read.description


@pytest.mark.parametrize("text", ["", "{}", " { } ", '{"why": "finished"}'])
def test_arguments_that_the_tool_takes(text: str) -> None:
    assert arguments_of(END_INTERVIEW, text).keys() <= {"why"}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "null",
        "[]",
        '"finished"',
        "1",
        "[" * 100_000,
        '{"why": null}',
        '{"why": "planted"}',
        '{"why": ["finished"]}',
        '{"planted": "x"}',
    ],
)
def test_arguments_that_it_does_not_take_are_refused_without_repeating_them(text: str) -> None:
    with pytest.raises(BadArguments) as refused:
        arguments_of(END_INTERVIEW, text)
    assert "planted" not in str(refused.value)
