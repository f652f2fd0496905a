"""`completion SHELL`: what each shell offers when it has read it, for every command there is.

The shells are asked themselves, each in an empty directory, so that no file name is offered. One
that is not installed here is not asked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from baguette.__main__ import main, parser
from baguette.commands.completion import levels

Offered = Callable[..., list[list[str]]]
SECONDS = 60.0

# Arguments: the script, then lines of words. What is offered for each ends with a line "%%".
BASH = r"""
source "$1"; shift
for line; do
    eval "COMP_WORDS=($line)"
    [[ $line == *\  ]] && COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _baguette
    printf '%s\n' "${COMPREPLY[@]}" %%
done
"""
FISH = r"""
source $argv[1]
for line in $argv[2..]
    complete -C $line | string replace -r '\t.*' ''
    echo %%
end
"""
# zsh completes only where somebody types, so a zsh of its own is typed to. All that it offers goes
# through compadd, which says with -A what would be; the words go to a file, and a mark to whoever
# types when the shell has done with a line.
ZSH = r"""
zmodload zsh/zpty
: > "${0:h}/offered"
zpty asked zsh -f -i
zpty -w asked "source ${(q)0:h}/typed ${(q)1}"
zpty -r asked seen '*-READY-*'
for line in "${@:2}"; do
    zpty -n -w asked $'\x15'"$line"$'\t'
    zpty -r asked seen '*-TOLD-*'
done
cat "${0:h}/offered"
"""
TYPED = r"""
autoload -U compinit && compinit -u -D
source $1
words_to=${0:h}/offered
compadd() {
    local -a found
    if (( ! ${@[(I)-[OAD]]} )); then
        builtin compadd -A found "$@"
        (( $#found )) && print -rl -- $found >> $words_to
    fi
    builtin compadd "$@"
}
told() {
    print %% >> $words_to
    print -n -- -TOLD-
    comppostfuncs=(told)  # the list is emptied each time
}
comppostfuncs=(told)
unsetopt auto_menu list_beep
bindkey '^I' list-choices
PROMPT=-READ
PROMPT+=Y-
"""
ASKED = {
    "bash": ("bash", "--norc", "-u"),
    "zsh": ("zsh", "-f"),
    "fish": ("fish",),
}


@pytest.fixture(params=ASKED)
def offered(request: Any, capfd: Any, tmp_path: Path) -> Offered:
    """The words this shell offers where the cursor stands at the end of each line."""
    shell: str = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here (apt-get install {shell})")
    assert main(["completion", shell]) == 0
    script, asking, elsewhere = tmp_path / "completion", tmp_path / "asking", tmp_path / "elsewhere"
    script.write_text(capfd.readouterr().out)
    asking.write_text({"bash": BASH, "zsh": ZSH, "fish": FISH}[shell])
    (tmp_path / "typed").write_text(TYPED)
    elsewhere.mkdir()

    def complete(*lines: str) -> list[list[str]]:
        done = subprocess.run(
            [*ASKED[shell], str(asking), str(script), *lines],
            capture_output=True, text=True, check=True, cwd=elsewhere, timeout=SECONDS,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        )  # fmt: skip
        assert done.stderr == ""
        *told, rest = done.stdout.split("%%\n")
        assert (len(told), rest) == (len(lines), "")
        return [sorted(one.split()) for one in told]

    return complete


def test_commands_are_offered_by_their_beginning(offered: Offered) -> None:
    assert offered(
        "baguette ge",
        "python -m baguette remote c",
        "../.venv/bin/python3 -m baguette to",
        "baguette completion ",
    ) == [["generate"], ["cancel", "cluster"], ["top"], ["bash", "fish", "zsh"]]


def test_flags_are_those_of_the_command_the_cursor_is_in(offered: Offered) -> None:
    assert offered(
        'baguette remote generate "a cat" --num_s',
        "baguette generate --prec",
        "baguette remote generate --prec",
        "baguette remote generate --detach --on_m",
    ) == [["--num_samples", "--num_steps"], ["--precision"], [], ["--on_missing"]]


def test_a_flag_with_choices_offers_them_and_others_leave_it_to_the_shell(offered: Offered) -> None:
    remote = "baguette remote generate"
    assert offered(
        f"{remote} --on_missing ", f"{remote} --on-missing d", f"{remote} --output ", f"{remote} "
    ) == [["degrade", "fail", "wait"], ["degrade"], [], []]


def test_another_python_is_left_alone(offered: Offered) -> None:
    assert offered("python -m http.server ge", "python ge") == [[], []]


@pytest.mark.parametrize("offered", ["zsh", "fish"], indirect=True)
def test_another_python_has_what_the_shell_knows_of_it(offered: Offered) -> None:
    (known,) = offered("python -")
    assert "-c" in known


def test_bash_takes_it_as_a_completion(capfd: Any) -> None:
    assert main(["completion", "bash"]) == 0
    code = capfd.readouterr().out + "complete -p baguette python"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert done.stdout.count("-F _baguette") == 2, done.stderr


def test_every_command_and_flag_is_there(offered: Offered) -> None:
    found = list(levels(parser()))
    at = [f"baguette {' '.join([*level.path, ''])}" for level in found]
    assert offered(*(f"{line}-" for line in at)) == [
        sorted(option.name for option in level.options) for level in found
    ]
    assert offered(*at) == [sorted([*level.commands, *level.values]) for level in found]
