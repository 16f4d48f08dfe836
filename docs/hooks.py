"""What MkDocs puts into pages while it builds: the help texts of the command line, and parts of the README.

``<!-- commands -->`` becomes the help of every subcommand; ``<!-- readme: NAME -->`` becomes the block of code that
follows ``<!-- ci: NAME -->`` in the README, or what stands there between ``<!-- NAME -->`` and ``<!-- /NAME -->``;
``<!-- table: NAME -->`` becomes the first table of ``docs/tables/NAME.md``. None of them can go stale.
"""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

from lightning_expedite.cli import SUBCOMMANDS
from lightning_expedite.cli.help_texts import help_text, kinds

README = Path(__file__).parents[1] / "README.md"
TABLES = Path(__file__).parent / "tables"
WIDE = r"tables/|reproduce\.md"
COLUMNS = 88
LONGEST = 45  # lines of a part of a help text that is shown without being asked for


def on_page_markdown(markdown: str, page: Any = None, **_: Any) -> str:
    """Fill a page's places, and give pages of wide tables the whole width."""
    if page is not None and re.match(WIDE, page.file.src_uri):
        page.meta["hide"] = ["navigation", "toc"]
    markdown = re.sub(r"^<!-- readme: ([\w-]+) -->$", lambda found: from_readme(found.group(1)), markdown, flags=re.M)
    markdown = re.sub(r"^<!-- table: ([\w-]+) -->$", lambda found: first_table(found.group(1)), markdown, flags=re.M)
    return re.sub(r"^<!-- commands -->$", lambda _: commands(), markdown, flags=re.M)


def from_readme(name: str) -> str:
    """Give a part of the README.

    Raises:
        PluginError: It has no such part.
    """
    text = README.read_text(encoding="utf-8")
    for pattern in (rf"<!-- ci: {name} -->\n(```.*?\n```)\n", rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->"):
        found = re.search(pattern, text, re.S)
        if found:
            return found.group(1)
    raise PluginError(f"README.md has no part named {name!r}")


def first_table(name: str) -> str:
    """Give the first table of a page of tables.

    Raises:
        PluginError: There is none.
    """
    path = TABLES / f"{name}.md"
    found = re.search(r"^\|.*?(?=\n\n|\Z)", path.read_text(encoding="utf-8"), re.M | re.S) if path.exists() else None
    if found is None:
        raise PluginError(f"docs/tables/{path.name} has no table")
    return found.group()


def commands() -> str:
    """Give a section for every subcommand."""
    return "\n".join(section for name in SUBCOMMANDS for section in sections((name,)))


def sections(words: tuple[str, ...]) -> Iterator[str]:
    """Give a subcommand's section, and one for each of its kinds."""
    text = help_text(words, COLUMNS)
    level = "#" * (1 + len(words))
    yield f"{level} {' '.join(words)}\n"
    if len(words) == 1:
        said = SUBCOMMANDS[words[0]]
        yield f"{said[0].upper()}{said[1:]}.\n"
    for title, part in parts(text):
        yield shown(title, part)
    for kind in kinds(words, text):
        if help_text((*words, kind), COLUMNS) != text:  # some kinds have no options of their own
            yield from sections((*words, kind))


def parts(text: str) -> Iterator[tuple[str, str]]:
    """Cut a help text where a line that is not indented begins a group of options; the groups' titles come along."""
    title, lines = "Usage", list[str]()
    for line in text.splitlines():
        if re.match(r"\S.*:$", line):
            yield title, "\n".join(lines)
            title, lines = line[:-1], []
        else:
            lines.append(line)
    yield title, "\n".join(lines)


def shown(title: str, part: str) -> str:
    """Show a part of a help text; a long one is folded away."""
    part = part.strip("\n")
    if not part:
        return ""
    block = f"``` {{ .text .help }}\n{part}\n```\n"
    if part.count("\n") < LONGEST:
        return f"**{title}**\n\n{block}" if title != "Usage" else block
    quoted = title.replace('"', "'")
    return f'??? note "{quoted}"\n\n{textwrap.indent(block, "    ")}'
