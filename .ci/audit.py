"""Looks up known vulnerabilities of the packages in an environment; needs pip-audit, which runs in its own.

python3 .ci/audit.py PYTHON [PIP_AUDIT], with the environment's Python, and the program pip-audit (from the PATH where
it is not given). Exit status: 0 every package was looked up, and nothing is known; 1 something was found; 3 nothing was
found, but some packages or all could not be looked up, so that nothing is known of them either way.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

CLEAN, FOUND, UNKNOWN = 0, 1, 3
OWN = "lightning-expedite"  # no service knows what is installed from a checkout
SERVICES = ("pypi", "osv")
# Vulnerabilities that do not concern this package, each with the reason.
ACCEPTED: dict[str, str] = {}


def audit(python: str, tool: str = "pip-audit") -> int:
    """Ask one service after the other until one knows packages; prints what was found, and gives the exit status."""
    place = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([python, "-c", place], capture_output=True, text=True, check=True).stdout.strip()
    ignored = [word for name in ACCEPTED for word in ("--ignore-vuln", name)]
    for service in SERVICES:
        words = [tool, "--path", packages, "--vulnerability-service", service, "--format", "json", *ignored]
        answer = subprocess.run([*words, "--progress-spinner", "off"], capture_output=True, text=True, check=False)
        content = _content(answer.stdout)
        if content is None:
            reason = next(reversed(answer.stderr.strip().splitlines()), "no reason given")
            print(f"the vulnerability service {service} gave no answer: {reason}")
        elif all("skip_reason" in one for one in content["dependencies"]):
            print(f"the vulnerability service {service} knows none of {len(content['dependencies'])} packages")
        else:
            return report(content["dependencies"], service)
    print("NOT AUDITED: no vulnerability service could be reached; this says nothing about the packages")
    return UNKNOWN


def report(packages: Sequence[dict[str, Any]], service: str) -> int:
    """Print the vulnerabilities, the packages that were not looked up, and the sum; gives the exit status."""
    found = [(one, known) for one in packages for known in one.get("vulns", [])]
    for one, known in found:
        fixed = ", ".join(known["fix_versions"]) or "no version yet"
        print(f"{one['name']} {one['version']}: {known['id']} ({', '.join(known['aliases'])}), mended in {fixed}")
    missing = [one for one in packages if "skip_reason" in one and one["name"] != OWN]
    for one in missing:
        print(f"NOT AUDITED: {one['name']}: {one['skip_reason']}")
    looked_up = sum("skip_reason" not in one for one in packages)
    print(
        f"{len(found)} known vulnerabilities in {looked_up} packages, by the service {service}; "
        f"{len(missing)} packages were not looked up"
    )
    for name, reason in ACCEPTED.items():
        print(f"accepted: {name}: {reason}")
    return FOUND if found else UNKNOWN if missing else CLEAN


def _content(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python3 .ci/audit.py PYTHON [PIP_AUDIT]")
    sys.exit(audit(*sys.argv[1:]))
