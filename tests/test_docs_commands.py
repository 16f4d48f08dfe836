"""The script that runs the commands of the documentation, and what is marked in the pages."""

import os
import re
import subprocess

import pytest
from docs_scripts import ROOT, run_commands

PAGE = """\
# A page

<!-- before: echo zero -->

```bash
echo one
```

<!-- not run: needs a thing -->
```bash
echo two
```

Text between.

<!-- ci: three -->
```bash
echo three
```

<!-- not run: this is of the text below, not of the block -->
Text.

1. In a list:

    ```bash
    for word in four five; do
      echo "$word"
    done
    ```

```python
print("no Bash")
```
"""


def test_blocks_of_a_page():
    blocks = list(run_commands.blocks_of(PAGE, "page.md"))
    assert [(block.place, block.reason) for block in blocks] == [
        ("page.md:3", None),
        ("page.md:5", None),
        ("page.md:10", "needs a thing"),
        ("page.md:17", ".ci/run runs it as 'three'"),
        ("page.md:26", None),
    ]
    assert blocks[0].commands == "echo zero\n"
    assert blocks[-1].commands == 'for word in four five; do\n  echo "$word"\ndone\n'


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with a README; gives a function that runs the script on pages."""
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "docs").mkdir()
    (tmp_path / ".gitignore").write_text("ignored\n")
    (tmp_path / "ignored").write_text("")
    monkeypatch.setattr(run_commands, "ROOT", tmp_path)
    monkeypatch.setattr(run_commands, "make_photos", lambda folder: folder.mkdir())

    def run(readme, *words, **pages):
        (tmp_path / "README.md").write_text(readme)
        for name, text in pages.items():
            (tmp_path / "docs" / f"{name}.md").write_text(text)
        return run_commands.main([*words])

    return run


def block(*commands, above=""):
    return "\n".join([above, "```bash", *commands, "```", ""])


def test_blocks_run_in_a_copy_of_their_page(project, tmp_path, capsys):
    first = block("test ! -e ignored", "test -d photos", "test -d .venv/bin", "echo left > made")
    second = block("cat made")
    other = block("test ! -e made", "grep -q bash README.md")
    assert project(first + second + block("false", above="<!-- not run: fails -->"), other=other) == 0
    assert not (tmp_path / "made").exists()
    printed = capsys.readouterr().out
    assert "3 of 3 blocks ran, " in printed
    assert re.search(r"README\.md:\d+: fails", printed)


@pytest.mark.parametrize("commands", [["false", "true"], ["false | true"], ['echo "$unset_variable"']])
def test_a_failing_command_fails_the_run(project, capsys, commands):
    assert project(block(*commands) + block("echo after")) == 1
    printed = capsys.readouterr().out
    assert "FAILED" in printed
    assert re.search(r"s  README\.md:2\n--- it ended with 1:", printed)
    assert "1 of 2 blocks ran, " in printed


def test_a_command_that_does_not_end_is_stopped(project, capsys, monkeypatch):
    monkeypatch.setattr(run_commands, "SECONDS", 0.3)
    assert project(block("exec sleep 20")) == 1
    assert "ended with 124" in capsys.readouterr().out


def test_chosen_pages_alone(project, capsys):
    assert project(block("false"), "docs/good.md", good=block("true")) == 0
    with pytest.raises(SystemExit):
        project(block("true"), "docs/none.md")
    assert "no block of Bash in docs/none.md" in capsys.readouterr().err


def test_the_python_of_a_block_is_the_one_that_runs_the_script(project, tmp_path):
    (tmp_path / "only_here.py").write_text("import os, yaml; print(os.getcwd())\n")
    assert project(block("python -m only_here", ".venv/bin/python -m only_here")) == 0


def test_pages_that_run_side_by_side_share_the_cores(project, monkeypatch):
    monkeypatch.setattr(run_commands.os, "cpu_count", lambda: 6)
    assert project(block('test "$OMP_NUM_THREADS" = 3')) == 0
    assert project(block('test "$OMP_NUM_THREADS" = 1'), "--jobs", "20") == 0


def test_nothing_is_installed(project):
    assert project(block("pip install no-such-package-anywhere", "python -m pip install no-such-package-anywhere")) == 0


# --- The project's own pages -------------------------------------------------------------------------

BLOCKS = run_commands.find_blocks(ROOT)


def test_the_pages_have_blocks_that_are_run_and_blocks_that_say_why_not():
    assert sum(block.reason is None for block in BLOCKS) > 10
    assert all(len(block.reason) > 10 for block in BLOCKS if block.reason)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_blocks_are_bash(block):
    answer = subprocess.run(["bash", "-n"], input=block.commands, text=True, capture_output=True, env=os.environ)
    assert answer.stderr == ""


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.reason is None], ids=lambda block: block.place)
def test_blocks_that_are_run_name_files_that_exist(block):
    for path in re.findall(r"\bconfigs/[\w/]+\.yaml", block.commands):
        assert (ROOT / path).exists(), path
