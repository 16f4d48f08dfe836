"""The bounds of setup.cfg and the look-up of vulnerabilities."""

import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
CI = ROOT / ".ci"


def module(name):
    """Import one of the scripts of CI."""
    spec = importlib.util.spec_from_file_location(name, CI / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


oldest, audit = module("oldest_versions"), module("audit")
REQUIREMENTS = [Requirement(text) for text in oldest.requirements()]


# --- Oldest versions ---------------------------------------------------------------------------------


@pytest.mark.promise("oldest-versions")
def test_the_constraints_are_the_lowest_versions_that_setup_cfg_allows(figure):
    words = [sys.executable, CI / "oldest_versions.py"]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    pins = {pin.name: next(iter(pin.specifier)).version for pin in map(Requirement, lines)}
    assert pins.keys() == {one.name for one in REQUIREMENTS}
    assert len(pins) == len(lines) > 20
    for one in REQUIREMENTS:
        (bound,) = one.specifier
        assert bound.operator in (">=", "==")
        assert bound.version == pins[one.name]
        assert one.specifier.contains(pins[one.name])
    figure("packages tested at their oldest version", len(pins))


@pytest.mark.promise("oldest-versions")
@pytest.mark.parametrize("text", ["pillow", "numpy<2", "numpy>=1,<3", "numpy~=1.26", "x @ file:///x", ""])
def test_a_requirement_without_an_oldest_version_is_refused(text):
    with pytest.raises(ValueError, match="does not say which version is the oldest"):
        oldest.constraint(text)


@pytest.mark.promise("oldest-versions")
def test_what_is_installed_is_within_the_bounds():
    for one in REQUIREMENTS:
        if one.name.replace("-", "_") in ("onnx", "onnxscript", "onnxruntime", "tensorboard", "wandb", "optuna"):
            pytest.importorskip(one.name)
        assert one.specifier.contains(Version(version(one.name)), prereleases=True), one


# --- Vulnerabilities ---------------------------------------------------------------------------------

KNOWN = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["1.1"], "description": "bad"}
OWN = {"name": "lightning-expedite", "skip_reason": "not on the index"}
CLEAN = [{"name": "good", "version": "1", "vulns": []}, OWN]
UNKNOWN = {"name": "private", "skip_reason": "not on the index"}
BAD = [*CLEAN, {"name": "bad", "version": "1.0", "vulns": [KNOWN]}]


@pytest.fixture
def tool(tmp_path):
    """A stand-in for pip-audit; give it what each service answers, or the error."""

    def make(**answers):
        path = tmp_path / "pip-audit"
        answers = {
            name: answer if isinstance(answer, str) else json.dumps({"dependencies": answer})
            for name, answer in answers.items()
        }
        path.write_text(
            f"#!{sys.executable}\nimport sys\n"
            f"answer = {answers!r}[sys.argv[sys.argv.index('--vulnerability-service') + 1]]\n"
            "print(answer, file=sys.stdout if answer.startswith('{') else sys.stderr)\n"
            "sys.exit('PYSEC' in answer or not answer.startswith('{'))\n"
        )
        path.chmod(0o755)
        words = [sys.executable, CI / "audit.py", sys.executable, path]
        done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
        return done.returncode, done.stdout + done.stderr

    return make


@pytest.mark.promise("audit")
def test_what_is_found_fails_and_what_is_clean_passes(tool):
    status, said = tool(pypi=BAD, osv=CLEAN)
    assert status == 1
    assert "bad 1.0: PYSEC-1 (CVE-1), mended in 1.1" in said
    assert "1 known vulnerabilities in 2 packages, by the service pypi; 0 packages were not looked up" in said
    status, said = tool(pypi=CLEAN, osv=BAD)
    assert status == 0
    assert "0 known vulnerabilities in 1 packages" in said
    assert "NOT AUDITED" not in said


@pytest.mark.promise("audit")
def test_a_service_that_cannot_be_reached_does_not_pass(tool):
    status, said = tool(pypi="ERROR: no route", osv="ERROR: refused")
    assert status == 3
    assert "pypi gave no answer: ERROR: no route" in said
    assert "NOT AUDITED: no vulnerability service" in said
    assert tool(pypi="ERROR", osv=BAD)[0] == 1
    assert tool(pypi="ERROR", osv=CLEAN)[0] == 0


@pytest.mark.promise("audit")
def test_a_service_that_knows_no_package_does_not_pass(tool):
    status, said = tool(pypi=[OWN, UNKNOWN], osv=[])
    assert status == 3
    assert "pypi knows none of 2 packages" in said
    assert "NOT AUDITED: no vulnerability service" in said
    assert tool(pypi=[UNKNOWN], osv=BAD)[0] == 1


@pytest.mark.promise("audit")
def test_a_package_that_was_not_looked_up_does_not_pass(tool):
    status, said = tool(pypi=[*CLEAN, UNKNOWN], osv=CLEAN)
    assert status == 3
    assert "NOT AUDITED: private: not on the index" in said
    assert "1 packages were not looked up" in said
    assert tool(pypi=[*BAD, UNKNOWN], osv=CLEAN)[0] == 1


@pytest.mark.promise("audit")
def test_what_is_accepted_has_a_reason():
    assert all(len(reason) > 20 for reason in audit.ACCEPTED.values())
