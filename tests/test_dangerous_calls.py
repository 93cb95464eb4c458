"""The package calls nothing that would run what a file, a config or a user's words hold."""

import ast
from pathlib import Path

import pytest

import anomalib_rd

NEVER = {"eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "joblib.load"}
NEVER |= {"torch.jit.load", "yaml.unsafe_load", "yaml.full_load", "subprocess.getoutput"}
ONLY_WITH = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "np.save": ("allow_pickle", False),
}


def dotted(node):
    """``torch.load`` of the call ``torch.load(...)``; an empty text for other kinds."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def dangers(source):
    """Line and name of each dangerous call."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = dotted(call.func)
        said = {k.arg: getattr(k.value, "value", ...) for k in call.keywords}
        word, value = ONLY_WITH.get(name, ("", None))
        by_shell = said.get("shell", False) is not False
        # Without them Pillow starts an interpreter for a file that holds PostScript.
        any_format = name == "Image.open" and "formats" not in said
        if name in NEVER or by_shell or any_format or (word and said.get(word, ...) is not value):
            yield call.lineno, name


def test_no_file_has_a_dangerous_call():
    found = {
        f"{path}:{line}": name
        for path in sorted(Path(anomalib_rd.__file__).parent.rglob("*.py"))
        for line, name in dangers(path.read_text())
    }
    assert found == {}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("eval('1')", "eval"),
        ("subprocess.run('ls ' + x, shell=True)", "subprocess.run"),
        ("subprocess.run(x, shell=y)", "subprocess.run"),
        ("torch.load(path)", "torch.load"),
        ("torch.load(path, weights_only=False)", "torch.load"),
        ("np.load(path, allow_pickle=True)", "np.load"),
        ("Image.open(path)", "Image.open"),
        ("Image.open(path, formats=['PNG'])", None),
        ("network.eval(); torch.load(path, weights_only=True)", None),
    ],
)
def test_what_it_looks_for_is_found(source, name):
    assert [found for _, found in dangers(source)] == ([name] if name else [])
