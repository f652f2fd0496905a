"""`completion SHELL`: what bash offers when it has read it, for every command there is."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from baguette.__main__ import main, parser
from baguette.commands.completion import levels


@pytest.fixture
def offered(capfd: Any, tmp_path: Path) -> Any:
    """The words bash offers where the cursor stands at the end of these."""
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "completion"
    script.write_text(capfd.readouterr().out)

    def complete(*words: str) -> list[str]:
        code = (
            'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _baguette; '
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "--norc", "-u", "-c", code, "bash", str(script), *words],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout.split()

    return complete


def test_commands_are_offered_by_their_beginning(offered: Any) -> None:
    assert offered("baguette", "ge") == ["generate"]
    assert offered("python", "-m", "baguette", "remote", "c") == ["cancel", "cluster"]
    assert offered("../.venv/bin/python3", "-m", "baguette", "to") == ["top"]
    assert offered("baguette", "completion", "") == ["bash", "fish", "zsh"]


def test_flags_are_those_of_the_command_the_cursor_is_in(offered: Any) -> None:
    assert offered("baguette", "remote", "generate", "a cat", "--num_s") == [
        "--num_samples",
        "--num_steps",
    ]
    assert "--precision" in offered("baguette", "generate", "-")
    assert "--precision" not in offered("baguette", "remote", "generate", "-")
    assert offered("baguette", "remote", "generate", "--detach", "--on_m") == ["--on_missing"]


def test_a_flag_with_choices_offers_them_and_others_leave_it_to_the_shell(offered: Any) -> None:
    remote = ("baguette", "remote", "generate")
    assert offered(*remote, "--on-missing", "") == ["wait", "degrade", "fail"]
    assert offered(*remote, "--output", "") == []
    assert offered(*remote, "") == []


def test_another_python_is_left_alone(offered: Any) -> None:
    assert offered("python", "-m", "http.server", "ge") == []
    assert offered("python", "ge") == []


def test_every_command_and_flag_is_there(offered: Any) -> None:
    for level in levels(parser()):
        assert offered("baguette", *level.path, "-") == [option.name for option in level.options]
        assert offered("baguette", *level.path, "") == [*level.commands, *level.values]


def test_bash_takes_it_as_a_completion(offered: Any, tmp_path: Path) -> None:
    code = 'source "$1"; complete -p baguette python'
    script = str(tmp_path / "completion")
    done = subprocess.run(["bash", "-c", code, "bash", script], capture_output=True, text=True)
    assert done.stdout.count("-F _baguette") == 2, done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_get_every_flag(shell: str, capfd: Any) -> None:
    assert main(["completion", shell]) == 0
    out = capfd.readouterr().out
    assert "on_missing" in out
    assert "'wait degrade fail'" in out
