"""The script that completes words in a shell, read by a real bash (and zsh, where it is there)."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_expedite.cli import SUBCOMMANDS, completion, help_texts
from lightning_expedite.cli.help_texts import Option

ROOT = Path(__file__).parents[1]
HELP = """\
usage: python -m lightning_expedite made {up,other} [options]

What it does.

options:
  -h, --help            Show this help message and exit.
  --config CONFIG, -c CONFIG
                        Path to a file.
  --kind {a,b}          One of two. (default: a)
  --flag                No value; not --this.
  --model.reducer CONFIG|CLASS VALUE
                        (type: Reducer, known subclasses: lightning_expedite.reducers.ACT, other.B)
  --list+ X, --list X   A list.
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "completion.bash"
    path.write_text(completion.script("bash"))
    return path


@pytest.fixture
def complete(script):
    """Gives what the script proposes for the words after ``python -m lightning_expedite``; the last is being typed."""

    def propose(*words, program=("python", "-m", "lightning_expedite"), before=""):
        every = [*program, *words]
        lines = [
            before,
            f"source {script}",
            f"COMP_WORDS=({' '.join(map(repr, every))})",
            f"COMP_CWORD={len(every) - 1}",
            "_lightning_expedite python",
            'printf "%s\\n" "${COMPREPLY[@]}"',
        ]
        answer = subprocess.run(
            ["bash", "--norc", "-c", "\n".join(lines)], capture_output=True, text=True, check=True, cwd=ROOT
        )
        assert answer.stderr == ""
        return answer.stdout.split()

    return propose


# --- Reading help texts ------------------------------------------------------------------------------


def test_options_of_a_help_text():
    found = help_texts.options(HELP)
    assert [option.names for option in found] == [
        ("-h", "--help"),
        ("--config", "-c"),
        ("--kind",),
        ("--flag",),
        ("--model.reducer",),
        ("--list+", "--list"),
    ]
    assert [option.value for option in found] == ["", "CONFIG", "{a,b}", "", "CONFIG|CLASS VALUE", "X"]
    assert [option.name for option in found[:2]] == ["--help", "--config"]
    assert found[5].name == "--list"
    assert found[1].text == "Path to a file."
    assert [option.choices for option in found] == [(), (), ("a", "b"), (), ("ACT",), ()]
    assert found[4].classes == ("lightning_expedite.reducers.ACT",)


def test_kinds_of_a_subcommand():
    assert help_texts.kinds(("made",), HELP) == ("up", "other")
    assert help_texts.kinds(("made", "up"), HELP) == ()
    assert help_texts.kinds(("made",), HELP.replace("{up,other}", "[-h] {up,other}")) == ("up", "other")


def test_class_options_come_once():
    reducer = Option(("--model.reducer",), "CLASS", "known subclasses: lightning_expedite.reducers.ToMe)")
    ratio = Option(("--model.reducer.ratio",), "RATIO", "")
    names = [option.names for option in completion.with_classes([reducer, ratio])]
    assert sorted(names) == [("--model.reducer",), ("--model.reducer.ratio",)]


def test_the_help_of_a_subcommand_is_what_it_prints(run):
    status, printed, _ = run("convert", "--help")
    assert status == 0
    found = {name for option in help_texts.options(help_texts.help_text(("convert",))) for name in option.names}
    assert {"--checkpoint", "--output", "--overwrite"} <= found
    assert all(name in printed for name in found)


# --- In bash -----------------------------------------------------------------------------------------


def test_subcommands(complete):
    assert complete("") == list(SUBCOMMANDS)
    assert complete("bench") == ["benchmark"]
    assert complete("--v") == ["--version"]


def test_options_of_each_subcommand(complete):
    assert "--model.checkpoint" in complete("test", "--model.c")
    assert complete("benchmark", "--iter") == ["--iterations"]
    assert complete("test", "--iter") == []
    assert complete("convert", "--check") == ["--checkpoint"]
    assert complete("test", "--config", "some.yaml", "--data.cou") == ["--data.count"]


def test_options_of_reducers_and_data_sets(complete):
    assert complete("test", "--model.reducer.rat") == ["--model.reducer.ratio"]
    assert complete("predict", "--model.reducer.query_h") == ["--model.reducer.query_hashes"]
    assert "--data.classes" in complete("test", "--data.cl")


@pytest.mark.parametrize(
    "words",
    [("--model.reducer", "T"), ("--model.reducer", "=", "T"), ("--config", "x.yaml", "--model.reducer", "T")],
    ids=["as two words", "with =", "after another"],
)
def test_values(complete, words):
    assert complete("test", *words) == ["TokenClustering", "ToMe"]


def test_values_right_after_the_sign(complete):
    assert "ADE20K" in complete("test", "--data", "=")
    assert complete("benchmark", "--device", "cu") == ["cuda"]
    assert complete("benchmark", "--device=cu") == ["--device=cuda"]  # where a shell does not divide at =


def test_files_are_left_to_the_shell(complete):
    assert complete("test", "--config", "") == []
    assert complete("test", "--config", "conf") == []


def test_kinds_and_their_options(complete):
    assert complete("prepare", "") == ["pascal_context"]
    assert "--json" in complete("prepare", "pascal_context", "--")
    assert complete("completion", "") == ["bash", "zsh"]


def test_other_programs_are_left_alone(complete):
    assert complete("te", program=("python", "-m", "pytest")) == []
    assert complete("te", program=("python", "script.py")) == []
    theirs = "_theirs() { COMPREPLY=(theirs); }; complete -o default -F _theirs python"
    assert complete("te", program=("python", "-m", "pytest"), before=theirs) == ["theirs"]
    assert complete("te", before=theirs) == ["test"]


def test_completing_is_fast(complete):
    start = time.perf_counter()
    complete("test", "--model.reducer.rat")
    assert time.perf_counter() - start < 1.5  # reading the script included; no Python is started


def test_the_script_is_registered_for_python(script):
    command = f"set -euo pipefail; source {script}; source {script}; complete -p python python3"
    answer = subprocess.run(["bash", "--norc", "-c", command], capture_output=True, text=True, check=True)
    assert answer.stdout.count("-F _lightning_expedite python") == 2


def test_no_such_shell(run):
    status, _, err = run("completion", "fish")
    assert status == 2
    assert "'fish'" in err


# --- In zsh ------------------------------------------------------------------------------------------


def test_zsh_reads_the_script(tmp_path):
    shell = shutil.which("zsh")
    if shell is None:
        pytest.skip("zsh is not installed")
    path = tmp_path / "completion.zsh"
    written = subprocess.run(
        [sys.executable, "-m", "lightning_expedite", "completion", "zsh"], capture_output=True, check=True, cwd=ROOT
    )
    path.write_bytes(written.stdout)
    # What bashcompinit's "complete" does when a word is completed, without a terminal.
    command = f"""
        source {path}
        words=(python -m lightning_expedite test --model.reducer.rat) CURRENT=5
        print -- $_comps[python] $(compgen -F _lightning_expedite)
    """
    answer = subprocess.run([shell, "-f", "-c", command], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert answer.stdout.split()[0] == "_lightning_expedite_zsh"
