"""`python -m baguette completion bash|zsh|fish`: completion of every command, made of its parsers.

Called by `baguette.__main__`, which hands its own parser over. What is printed is the shell's to
read: words of ours only. It completes `baguette` and, after `-m baguette`, `python`. zsh runs
bash's own, which its bashcompinit is for; to another `python` zsh and fish keep their own.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

PROGRAMS = ("baguette", "python", "python3")
FILES = "-o bashdefault -o default"  # where nothing is offered
EXAMPLES = """\
examples:
  source <(python -m baguette completion bash)        # also in ~/.bashrc
  source <(python -m baguette completion zsh)         # also in ~/.zshrc, after compinit
  python -m baguette completion fish | source
"""


@dataclass(frozen=True)
class Option:
    """A flag: its first spelling, all of them, whether a value follows and which there are."""

    name: str
    spellings: tuple[str, ...]
    valued: bool
    choices: tuple[str, ...]
    words: str


@dataclass(frozen=True)
class Level:
    """A command as it is typed, and what may come next."""

    path: tuple[str, ...]
    options: tuple[Option, ...]
    commands: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def at(self) -> str:
        """The command as the shells' functions keep it."""
        return "".join(f" {word}" for word in self.path)


def add_to(parsers: Any, whole: argparse.ArgumentParser) -> None:
    """Add this command and its options; `whole` is the parser of all commands."""
    parser = parsers.add_parser(
        "completion",
        help="print what completes these commands in a shell",
        description="Print what completes these commands in a shell.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=sorted(SHELLS), help="which shell is to read it")
    parser.set_defaults(run=lambda args: run(args, whole))


def run(args: argparse.Namespace, whole: argparse.ArgumentParser) -> int:
    """Print it."""
    print("\n".join(SHELLS[args.shell](list(levels(whole)))))
    return 0


def levels(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[Level]:
    """This parser, then those of its commands."""
    subs = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    values = [
        value
        for action in parser._actions
        if not action.option_strings and action not in subs
        for value in action.choices or ()
    ]
    commands = {name: sub for action in subs for name, sub in action.choices.items()}
    options = tuple(_option(action) for action in parser._actions if action.option_strings)
    yield Level(path, options, tuple(commands), tuple(map(str, values)))
    for name, sub in commands.items():
        yield from levels(sub, (*path, name))


def _option(action: argparse.Action) -> Option:
    spellings = tuple(action.option_strings)
    name = next((one for one in spellings if one.startswith("--")), spellings[0])
    choices = tuple(map(str, action.choices or ()))
    words = (action.help or "").partition("(default")[0].strip()
    return Option(name, spellings, action.nargs != 0, choices, words)


def bash(found: Sequence[Level]) -> Iterator[str]:
    """One function. Where it offers nothing the shell completes file names."""
    deeper = [shlex.quote(level.at) for level in found if level.path]
    yield "_baguette() {"
    yield "    local start=1 at='' i current=${COMP_WORDS[COMP_CWORD]} offered=''"
    yield "    COMPREPLY=()"
    yield "    if [[ ${COMP_WORDS[0]##*/} == python* ]]; then"
    yield '        [[ "${COMP_WORDS[*]:1:2}" == "-m baguette" ]] || return 0'
    yield "        start=3"
    yield "    fi"
    yield "    (( COMP_CWORD >= start )) || return 0"
    yield "    for (( i = start; i < COMP_CWORD; i++ )); do"
    yield '        case "$at ${COMP_WORDS[i]}" in'
    yield f'            {"|".join(deeper)}) at="$at ${{COMP_WORDS[i]}}" ;;'
    yield "        esac"
    yield "    done"
    yield '    case "$at ${COMP_WORDS[COMP_CWORD-1]}" in'
    for level in found:
        yield from _values(level)
    yield "    esac"
    yield '    case "$at" in'
    for level in found:
        names = [*level.commands, *level.values]
        yield f"        {shlex.quote(level.at)}) offered={shlex.quote(' '.join(names))}"
        flags = shlex.quote(" ".join(option.name for option in level.options))
        yield f"            [[ $current == -* ]] && offered={flags} ;;"
    yield "    esac"
    yield '    COMPREPLY=($(compgen -W "$offered" -- "$current"))'
    yield "}"
    yield f"complete {FILES} -F _baguette {' '.join(PROGRAMS)}"


def _values(level: Level) -> Iterator[str]:
    """After an option with a value: one of its choices, else a file name."""
    for option in level.options:
        if option.valued:
            typed = [shlex.quote(f"{level.at} {s}") for s in option.spellings]
            words = shlex.quote(" ".join(option.choices))
            yield f"        {'|'.join(typed)})"
            yield f'            COMPREPLY=($(compgen -W {words} -- "$current")); return 0 ;;'


def zsh(found: Sequence[Level]) -> Iterator[str]:
    """bash's, under zsh's own emulation of bash's completion."""
    yield "autoload -U +X bashcompinit && bashcompinit"
    yield from bash(found)
    yield "_baguette_python() {"
    yield '    if [[ "${words[2]} ${words[3]}" == "-m baguette" ]]; then'
    yield f"        _bash_complete {FILES} -F _baguette"
    yield "    else"
    yield '        _python "$@"'
    yield "    fi"
    yield "}"
    yield f"compdef _baguette_python {' '.join(PROGRAMS[1:])}"


def fish(found: Sequence[Level]) -> Iterator[str]:
    """A line per word, each with the condition that we are at its command."""
    deeper = [_fish(level.at) for level in found if level.path]
    yield "function __baguette_at"
    yield "    set -l words (commandline -opc)"
    yield "    if string match -q -- '*python*' $words[1]"
    yield "        test \"$words[2..3]\" = '-m baguette'; or return 1"
    yield "        set words $words[3..]"
    yield "    end"
    yield "    set -l at ''"
    yield "    for word in $words[2..]"
    yield f'        contains -- "$at $word" {" ".join(deeper)}; and set at "$at $word"'
    yield "    end"
    yield '    test "$at" = "$argv[1]"; or return 1'
    yield '    test (count $argv) -eq 1; or test "$words[-1]" = "$argv[2]"'
    yield "end"
    for level in found:
        yield from (f"complete -c {program} {rest}" for program in PROGRAMS for rest in _at(level))


def _at(level: Level) -> Iterator[str]:
    """What fish is told of one command; only the first spelling of a flag is offered."""
    condition = f"__baguette_at {_fish(level.at)}"
    for name in (*level.commands, *level.values):
        yield f"-n {_fish(condition)} -f -a {_fish(name)}"
    for option in level.options:
        choices = _fish(" ".join(option.choices))
        more = " -r" if option.valued else ""
        more += f" -x -a {choices}" if option.choices else ""
        flag = f"-l {option.name.removeprefix('--')} -d {_fish(option.words)}{more}"
        yield f"-n {_fish(condition)} {flag}"
        for other in option.spellings if option.choices else ():
            if other != option.name:
                yield f"-n {_fish(f'{condition} {other}')} -f -a {choices}"


def _fish(text: str) -> str:
    """A single-quoted word of fish."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}
