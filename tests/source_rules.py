"""Calls by which a program runs what a file says, found in Python source."""

import ast
from collections.abc import Iterator

# Names that run code, unpack archives or read pickles, whatever their arguments are.
FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "pty.spawn", "runpy.run_path"),
    *("runpy.run_module", "importlib.util.spec_from_file_location", "code.interact"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "cPickle.load", "dill.load", "dill.loads", "joblib.load"),
    *("cloudpickle.load", "cloudpickle.loads", "marshal.load", "marshal.loads", "shelve.open", "pandas.read_pickle"),
    *("tarfile.open", "tarfile.TarFile", "zipfile.ZipFile", "zipfile.PyZipFile", "shutil.unpack_archive"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load", "yaml.unsafe_load_all"),
    *("torch.hub.load", "torch.jit.load"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "urllib.request.urlopen", "urllib.request.urlretrieve"),
}
# Arguments that a call must not have, by name, unless they have this value.
ARGUMENTS = {"shell": False, "trust_remote_code": False, "allow_pickle": False, "weights_only": True}
METHODS = {"extractall", "unpack_archive"}  # of archives, however they were opened
IMPORTS = "importlib.import_module"


def violations(source: str) -> Iterator[tuple[int, str]]:
    """Give line and name of every call that runs, or may run, what a file says."""
    tree = ast.parse(source)
    names = dict(_names(tree))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = _dotted(node.func, names)
        if name in FORBIDDEN or (isinstance(node.func, ast.Attribute) and node.func.attr in METHODS):
            yield node.lineno, name
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if name == "torch.load" and "weights_only" not in given:
            yield node.lineno, "torch.load without weights_only=True"
        for argument, wanted in ARGUMENTS.items():
            if argument in given and not _is(given[argument], wanted):
                yield node.lineno, f"{name}({argument}=...)"
        if name == "jinja2.Environment" and not ("autoescape" in given and _is(given["autoescape"], True)):
            yield node.lineno, "jinja2.Environment without autoescape=True"


def imports_by_name(source: str) -> Iterator[int]:
    """Give the lines that import a module whose name is not written there."""
    tree = ast.parse(source)
    names = dict(_names(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _dotted(node.func, names) == IMPORTS:
            first = node.args[0]
            if not isinstance(first, ast.Constant):
                yield node.lineno


def _is(node: ast.expr, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _names(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Give what imported names stand for: ``np`` for ``numpy``, ``load`` for ``torch.load``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((one.asname, one.name) for one in node.names if one.asname)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((one.asname or one.name, f"{node.module}.{one.name}") for one in node.names)


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, names)}.{node.attr}"
    return ""
