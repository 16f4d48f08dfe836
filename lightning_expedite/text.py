"""Text from files, escaped for where it is written; and numbers as they are shown."""

import unicodedata

from rich.text import Text

MISSING = "–"
LONGEST = 120  # characters of a name; texts made of names may be longer
_ANY = 100_000
_MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_{}[]#|~$@"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
    "[": "{[}",  # behind the end of a row a bracket would open an option
    "]": "{]}",
    "-": "{-}",  # else two of them become a dash
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "−": "$-$",
    "–": "--",
    "×": r"$\times$",
    "Δ": r"$\Delta$",
    "≤": r"$\leq$",
}
_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u0327": "c ", "\u030c": "v "}


def plain(text: object, limit: int = LONGEST) -> str:
    """Return a text from a file as one line of visible characters, at most ``limit`` of them."""
    visible = "".join(sign if sign.isprintable() else " " for sign in str(text))
    return shortened(" ".join(visible.split()), limit)


def visible(text: object) -> str:
    """Replace characters that cannot be seen, which a terminal would take for a command."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "\N{REPLACEMENT CHARACTER}" for sign in str(text))


def literal(text: object, style: str = "") -> Text:
    """Return a text that rich prints as it is: without markup, emoji codes and terminal commands."""
    return Text(visible(text), style)


def shortened(text: str, limit: int) -> str:
    """Cut a text that is longer than ``limit`` characters, ending it with an ellipsis."""
    return text if len(text) <= limit else f"{text[: limit - 1].rstrip()}…"


def markdown(text: object) -> str:
    """Escape a text for Markdown and the HTML inside it."""
    return plain(text, _ANY).translate(_MARKDOWN).replace("://", ":\\//")  # else an address becomes a link


def latex(text: object) -> str:
    """Escape a text for LaTeX with any engine: accents become commands, other characters their code point."""
    return "".join(_latex_sign(sign) for sign in plain(text, _ANY))


def csv_cell(value: object) -> object:
    """Escape a text so that a spreadsheet does not take it for a formula; numbers are returned as they are."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = plain(value, _ANY)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def digits(value: float | None) -> str:
    """Format a number with four significant digits, large ones in full."""
    if value is None:
        return MISSING
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.4g}".rstrip(".")


def signed(value: float | None, form: str = ".2f") -> str:
    """Format a difference with its sign, which zero does not have."""
    if value is None:
        return MISSING
    text = format(abs(value), form)
    return text if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def _latex_sign(sign: str) -> str:
    if sign in _LATEX:
        return _LATEX[sign]
    if sign.isascii():
        return sign
    if sign == "…":
        return r"\ldots{}"
    parts = unicodedata.normalize("NFD", sign)
    if len(parts) == 2 and parts[0].isascii() and parts[0].isalpha() and parts[1] in _ACCENTS:
        return f"\\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return f"U+{ord(sign):04X}"
