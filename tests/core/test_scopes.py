"""What a key opens, and which scopes it can give to another."""

from __future__ import annotations

import pytest

from interview_peer.core import scopes
from interview_peer.core.scopes import EVERYTHING, Scope

MADE = frozenset((Scope.INTERVIEWS, Scope.ERASE))


def test_any_one_of_the_scopes_that_are_asked_for_is_enough() -> None:
    assert scopes.opens(MADE, frozenset((Scope.ERASE, Scope.RECORDINGS)))
    assert not scopes.opens(MADE, frozenset((Scope.RECORDINGS,)))
    assert not scopes.opens(frozenset(), frozenset((Scope.RECORDINGS,)))


@pytest.mark.parametrize("operation", sorted(scopes.NEEDED))
def test_each_operation_asks_for_some_scope_and_for_no_key_that_opens_everything(
    operation: str,
) -> None:
    wanted = scopes.needed(*operation.split(" "))
    assert wanted and Scope.ALL not in wanted
    assert scopes.opens(EVERYTHING, wanted)


def test_each_scope_opens_something_that_the_others_do_not() -> None:
    alone = {next(iter(wanted)) for wanted in scopes.NEEDED.values() if len(wanted) == 1}
    assert alone == {*Scope} - EVERYTHING


def test_what_is_read_without_its_body_asks_for_the_same() -> None:
    path = "/api/interviews/{interview_id}/recording/{which}"
    assert scopes.needed("HEAD", path) == scopes.needed("GET", path)
    with pytest.raises(KeyError):
        scopes.needed("HEAD", "/api/webhooks/replay")


def test_an_operation_that_is_not_in_the_table_is_nobodys() -> None:
    with pytest.raises(KeyError):
        scopes.needed("GET", "/api/new")


def test_a_key_gives_no_more_than_its_own() -> None:
    assert scopes.beyond(MADE, MADE) == frozenset()
    assert scopes.beyond(MADE | {Scope.OPERATE}, MADE) == {Scope.OPERATE}
    # What a later version adds would be among it.
    assert scopes.beyond(EVERYTHING, frozenset(Scope) - EVERYTHING) == EVERYTHING
    assert scopes.beyond(MADE | EVERYTHING, EVERYTHING) == frozenset()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (EVERYTHING, "all"),
        (MADE, "interviews erase"),
        (MADE | EVERYTHING, "all"),
        (frozenset(Scope) - EVERYTHING, "interviews recordings erase webhooks operate"),
    ],
)
def test_what_is_kept_is_read_again(given: scopes.Scopes, kept: str) -> None:
    assert scopes.written(given) == kept
    assert scopes.opens(scopes.read(kept), MADE)
    assert scopes.written(scopes.read(kept)) == kept


def test_names_that_are_not_known_open_nothing() -> None:
    assert scopes.read("interviews telepathy") == {Scope.INTERVIEWS}
    assert scopes.read("All interviewsx allx") == scopes.read("") == frozenset()
