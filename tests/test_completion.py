"""The completion script, read by a real bash (and zsh, where it is installed)."""

import shutil
import subprocess

import pytest
from small_run import command_line

from lightning_expedite.cli import SUBCOMMANDS
from lightning_expedite.cli.completion import script_for

COMPLETE = """
source {script}
COMP_WORDS=({words}) COMP_CWORD={last}
_shtab_lightning_expedite "${{COMP_WORDS[0]}}" "${{COMP_WORDS[-1]}}" "${{COMP_WORDS[-2]}}"
printf "%s\\n" "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "completion.bash"
    path.write_text(script_for("bash"))
    return path


@pytest.fixture
def complete(script):
    """Returns what bash proposes after ``lightning-expedite``; the last word is being typed."""

    def propose(*words):
        every = ["lightning-expedite", *words]
        program = COMPLETE.format(script=script, words=" ".join(map(repr, every)), last=len(words))
        answer = subprocess.run(["bash", "--norc", "-c", program], capture_output=True, text=True, check=True)
        assert answer.stderr == ""
        return answer.stdout.split()

    return propose


def test_commands_and_their_options(complete):
    assert set(SUBCOMMANDS) <= set(complete(""))
    assert complete("bench") == ["benchmark"]
    assert complete("benchmark", "--iter") == ["--iterations"]
    assert complete("test", "--iter") == []
    assert complete("test", "--data.cou") == ["--data.count"]
    assert complete("convert", "--check") == ["--checkpoint"]
    assert complete("prepare", "pascal_context", "--j") == ["--json"]


def test_reducers_data_sets_and_their_settings(complete):
    assert {"ToMe", "TokenClustering", "EViT", "ACT"} <= {
        word.rpartition(".")[2] for word in complete("test", "--model.reducer", "")
    }
    assert "Folder" in {word.rpartition(".")[2] for word in complete("predict", "--data", "")}
    assert complete("test", "--model.reducer.rat") == ["--model.reducer.ratio"]
    assert complete("benchmark", "--device", "cu") == ["cuda"]


def test_options_of_training_are_not_proposed(complete):
    assert complete("test", "--trainer.max_ep") == []
    assert complete("test", "--trainer.limit_test") == ["--trainer.limit_test_batches"]


def test_the_command_prints_a_script_for_zsh(capsys, tmp_path):
    status, script, _ = command_line(capsys, "completion", "zsh")
    assert status == 0
    assert len(script) < 500_000
    assert "reducers.ToMe" not in script
    assert "TokenClustering" in script
    if shutil.which("zsh"):
        (tmp_path / "script").write_text(script)
        subprocess.run(["zsh", "-n", tmp_path / "script"], check=True)


def test_an_unknown_shell(fails):
    assert "shell is fish: expected one of bash, zsh" in fails("completion", "fish")
