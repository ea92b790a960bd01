"""
Arrows go one way (STYLE section 1): the imports of every module, read and not run.

An import inside a function or for type checking is an arrow too. Who needs a new one changes the table
here, where it is seen.
"""

import ast
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import xmpppush

PACKAGE = Path(xmpppush.__file__).parent

# Values, words and contracts: what every module may know.
VOCABULARY = (
    "xmpppush",
    "xmpppush.model",
    "xmpppush.errors",
    "xmpppush.jids",
    "xmpppush.interfaces",
    "xmpppush.config.sections",
    "xmpppush.xep*",
)
# Ways to the outside that roles share; they know no role.
TOOLS = (
    "xmpppush.coroutines",
    "xmpppush._wokkel",
    "xmpppush.cache",
    "xmpppush.certificates",
    "xmpppush.clock",
    "xmpppush.http*",
    "xmpppush.listening",
    "xmpppush.logs",
    "xmpppush.metrics",
    "xmpppush.notify",
    "xmpppush.trace",
)
ROLES = (
    "admin",
    "config",
    "mod_push",
    "mod_push_service_mongoosepush",
    "mod_pubsub",
    "mongoosepush",
    "server",
    "storage",
)
# Where the parts meet.
KNOW_EVERYBODY = ("tap", "commands", "control", "demo", "operations", "options", "testing", "__main__")
# SQL lives with its role and meets the engine through `IDatabase`; storage/ puts both together.
STORES = {"storage": ("xmpppush.mod_push.store", "xmpppush.mod_pubsub.store")}
PURE = (
    "*.rules",
    "*.breaker",
    "*.schedule",
    "*.retry",
    "*.payload",
    "*.outcomes",
    "*.times",
    "xmpppush.xep.*",
)
PURE_MAY_NEED = ("xmpppush", "xmpppush.model", "xmpppush.errors", "xmpppush.jids", "xmpppush.xep*")
PURE_VALUES = ("xmpppush.config.sections",)
PURE_LIBRARIES = (
    "attrs",
    "orjson",
    "twisted.words.xish.domish",
    "twisted.words.protocols.jabber.error",
    "twisted.words.protocols.jabber.jid",
    "twisted.python.failure",
)
STANDARD = sys.stdlib_module_names
# What acts on the world, or answers otherwise each time it is asked.
WORLDLY = ("asyncio", "os", "random", "secrets", "socket", "sqlite3", "subprocess", "threading", "time")


def module_of(path: Path) -> str:
    """``xmpppush/xep/push.py`` is ``xmpppush.xep.push``, a package is its own name."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_in(tree: ast.AST, name: str) -> Iterator[str]:
    """The full names that ``tree``, code of module ``name``, imports: modules, or names in them."""
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*parents, node.module or ""]).strip(".") if node.level else str(node.module)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def source_of(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def module_named(target: str) -> str:
    """The module of ours that ``target``, a module or a name in one, lies in."""
    return target if target in FILES else target.rpartition(".")[0]


IMPORTS = {name: frozenset(imports_in(source_of(name), name)) for name in FILES}
OURS = {
    name: frozenset(module_named(target) for target in targets if target.split(".")[0] == "xmpppush")
    for name, targets in IMPORTS.items()
}
OTHERS = {
    name: frozenset(target for target in targets if target.split(".")[0] != "xmpppush")
    for name, targets in IMPORTS.items()
}


def loaded_by(name: str) -> Iterator[str]:
    """What of ours importing ``name`` imports at once: not what its functions do, nor type checkers."""
    for statement in source_of(name).body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            targets = imports_in(statement, name)
            yield from (module_named(target) for target in targets if target.split(".")[0] == "xmpppush")


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def part_of(name: str) -> str:
    """The folder or file right below ``xmpppush`` that a module belongs to."""
    return name.split(".")[1] if "." in name else ""


def test_every_import_of_ours_names_a_module_that_is_there():
    """The reading itself is right: each arrow ends at a file."""
    missing = {name: targets - FILES.keys() for name, targets in OURS.items() if targets - FILES.keys()}
    assert not missing


@pytest.mark.parametrize("name", ["xmpppush.model", "xmpppush.errors", "xmpppush.config.sections"])
def test_values_and_errors_need_nobody(name):
    """Frozen values and exceptions import nothing of ours and nothing of Twisted."""
    assert not OURS[name]
    assert not {target for target in OTHERS[name] if target.startswith("twisted")}


@pytest.mark.parametrize("name", [name for name in FILES if matches(name, PURE)])
def test_pure_files_need_only_values_and_readers(name):
    """Rules, retries, payloads, outcomes and xep/ know no reactor, store or clock, and no other role."""
    package = name.rpartition(".")[0]
    siblings = [other for other in FILES if other.rpartition(".")[0] == package and matches(other, PURE)]
    own = (package, *siblings) if part_of(name) in ROLES else ()
    assert {
        target for target in OURS[name] if not matches(target, (*PURE_MAY_NEED, *PURE_VALUES, *own))
    } == set()
    for target in OTHERS[name]:
        library = target.split(".")[0]
        assert library not in WORLDLY, target
        if library not in STANDARD:
            assert any(f"{target}.".startswith(f"{known}.") for known in PURE_LIBRARIES), target


@pytest.mark.parametrize("name", [name for name in FILES if part_of(name) in ROLES])
def test_roles_meet_through_interfaces(name):
    """A role imports itself, the shared vocabulary and tools, and no other role."""
    role = part_of(name)
    allowed = (*VOCABULARY, *TOOLS, f"xmpppush.{role}", f"xmpppush.{role}.*", *STORES.get(role, ()))
    assert {target for target in OURS[name] if not matches(target, allowed)} == set()


@pytest.mark.parametrize("name", [name for name in FILES if matches(name, (*VOCABULARY, *TOOLS))])
def test_what_all_share_knows_no_role(name):
    """Vocabulary and tools import each other at most."""
    assert {target for target in OURS[name] if not matches(target, (*VOCABULARY, *TOOLS))} == set()


def test_only_the_meeting_places_know_everybody():
    """``tap.py`` and the commands import roles; nobody but them imports those."""
    for name, targets in OURS.items():
        if part_of(name) not in KNOW_EVERYBODY:
            assert not {target for target in targets if part_of(target) in KNOW_EVERYBODY}, name


def test_only_one_module_imports_wokkel():
    """Everybody else gets Wokkel from `xmpppush._wokkel`, with the shim in place."""
    users = {name for name, targets in OTHERS.items() if any(t.split(".")[0] == "wokkel" for t in targets)}
    assert users <= {"xmpppush._wokkel"}


def test_nobody_imports_intern_jid():
    """Twisted's ``internJID`` forgets nothing; `xmpppush.jids` has a bounded cache."""
    assert not {name for name, targets in IMPORTS.items() if any("internJID" in t for t in targets)}


def test_the_reactor_comes_in_through_constructors():
    """Only what starts the program imports the global reactor."""
    users = {name for name, targets in OTHERS.items() if "twisted.internet.reactor" in targets}
    assert {name for name in users if part_of(name) not in KNOW_EVERYBODY} == set()


def test_modules_form_no_circle():
    """Imports at module level can be put in an order."""
    TopologicalSorter({name: set(loaded_by(name)) - {name} for name in FILES}).prepare()
