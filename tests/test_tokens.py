"""Tokens and keys of the HTTP API, as the launcher makes them."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from launcher import commands, tokens
from launcher.options import BadOption, Options
from launcher.processes import Refused
from launcher.secret import Secret


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_is_what_the_nodes_expect() -> None:
    # apps/baguette_web/test/baguette_web_tokens_tests.erl has the same one
    assert (
        tokens.token("default", bytes(32)) == "default.8ZvIH85J8881Bv4FBTUl7Q13rNTF6nG9vPNe6jVatUs"
    )


@pytest.mark.parametrize("name", ["", "Upper", "a b", "a.b", "x" * 33, "é", "a\n"])
def test_a_name_that_no_token_can_have_is_refused(name: str) -> None:
    with pytest.raises(BadOption, match="NAME"):
        tokens.check_name(name)


def test_a_checkout_has_one_key_whoever_asks_first(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: tokens.read_key(tokens.checkout_key(run)), range(32)))
    assert len(keys) == 1
    assert mode(run / "http.key") & 0o077 == 0
    assert [path.name for path in run.iterdir()] == ["http.key"]


def test_machines_with_one_secret_have_one_key(tmp_path: Path) -> None:
    secret = Secret.new()
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made.append(tokens.read_key(tokens.write_member_key(secret, tmp_path / name)))
    assert made[0] == made[1]
    (tmp_path / "c").mkdir()
    assert tokens.read_key(tokens.write_member_key(Secret.new(), tmp_path / "c")) != made[0]


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "http.key").write_text("short")
    with pytest.raises(Refused, match=r"http\.key"):
        tokens.read_key(tmp_path / "http.key")


@pytest.mark.usefixtures("own_run")
def test_a_token_is_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = Options.read({"NAME": "phone"})
    assert commands.token(options) == 0
    first = capsys.readouterr().out.strip()
    path = tmp_path / "run" / "tokens" / "phone"
    assert path.read_text().strip() == first
    assert mode(path) & 0o077 == 0
    assert mode(path.parent) & 0o077 == 0
    assert commands.token(options) == 0
    second = capsys.readouterr().out
    assert str(path) in second
    assert first not in second


@pytest.mark.usefixtures("own_run")
def test_another_key_makes_another_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.token(Options.read({})) == 0
    first = capsys.readouterr().out
    (tmp_path / "run" / "http.key").unlink()
    assert commands.token(Options.read({})) == 0
    assert capsys.readouterr().out != first
