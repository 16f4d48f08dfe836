"""Texts that a file may hold, and that a page, a table or a terminal would take for something else than text."""

from html.parser import HTMLParser

NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><script>alert(1)</script>",
    '" onload="alert(1)" x=\'',
    "</style><!-- <svg onload=alert(1)>",
    "javascript:alert(1)",
    "=HYPERLINK(1)",
    "a|b](javascript:alert(1))[x",
    "$\\input{/etc/passwd}$ % # & _ ^ ~",
    "{{ 7*7 }} {% raw %}",
    "x\nsecond\u202eline\x00\u2028third\u2029",
    "_hidden",
    "中文 naïve",
)
# What a terminal's library takes for styles, links and emojis, and what the terminal itself takes for commands.
TERMINAL = (
    "[/]",
    "[red]x",
    "[/red]",
    "[link=https://example.com]y[/link]",
    "[@click=x]y",
    "\\[x]\\",
    ":car:",
    "\x1b[31mred",
    "\x1b]8;;https://example.com\x07y",
    "a\u202eb\rc",
)


class Seen(HTMLParser):
    """What a browser would see: tags, attributes, and where links and pictures lead."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.links += [value for name, value in attrs if name in ("src", "href")]
