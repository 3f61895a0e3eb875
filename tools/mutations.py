"""Small faults to plant in Python source: those that a module can have, and its text with one of them."""

import ast
import copy
import itertools
from typing import NamedTuple

COMPARISONS = {
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
}
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.FloorDiv}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
PLAIN = {"isinstance", "issubclass", "getattr", "setattr", "hasattr", "partial"}  # arguments are not swapped
STATEMENTS = (ast.AugAssign, ast.Raise, ast.Break, ast.Continue)  # statements that may be left out; see also _deletable
UNSEEN = (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom, ast.Assert)  # text, and errors of which the words do not matter here
SILENT = {"__repr__", "__str__"}


class Mutation(NamedTuple):
    """One change: what is between two places of a text, and what is there instead."""

    kind: str
    line: int
    start: int  # in bytes
    stop: int
    before: str
    after: str


def mutations(text):
    """All changes that can be made to a module, in the order of the text. Whether one is a fault says `is_fault`."""
    lines = text.encode().splitlines(keepends=True)
    starts = [0, *itertools.accumulate(map(len, lines))]
    found = []
    for node, kind, after in _walk(ast.parse(text)):
        start, stop = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        found.append(Mutation(kind, node.lineno, start, stop, text.encode()[start:stop].decode(), after))
    return sorted(dict.fromkeys(found), key=lambda mutation: mutation[2:])


def planted(text, mutation):
    """The text with this fault."""
    data = text.encode()
    return (data[: mutation.start] + mutation.after.encode() + data[mutation.stop :]).decode()


def is_fault(text, mutation):
    """Whether the changed text parses, and is another program."""
    try:
        return ast.dump(ast.parse(planted(text, mutation))) != ast.dump(ast.parse(text))
    except SyntaxError:
        return False


def _walk(node):
    """A node, the kind of a change, and the text of what replaces the node."""
    if isinstance(node, ast.stmt) and _deletable(node):
        yield node, "statement", "pass"
    if isinstance(node, UNSEEN) or (isinstance(node, ast.FunctionDef) and node.name in SILENT) or _only_for_types(node):
        return
    if isinstance(node, ast.expr):
        for kind, changed in _changed(node):
            text = ast.unparse(changed)
            yield node, kind, f"({text})" if isinstance(changed, (ast.BinOp, ast.BoolOp, ast.UnaryOp)) else text
    if isinstance(node, ast.Return) and node.value is not None:
        yield node, "return", "return None"
    if isinstance(node, (ast.If, ast.While, ast.IfExp)):
        yield node.test, "condition", f"(not ({ast.unparse(node.test)}))"
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _walk(child)


def _deletable(statement):
    """Whether the text without this statement still has all of its names."""
    if isinstance(statement, ast.Expr):
        return not isinstance(statement.value, (ast.Constant, ast.Yield))
    if isinstance(statement, ast.Assign):
        return all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in statement.targets)
    return isinstance(statement, STATEMENTS)


def _only_for_types(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _changed(node):
    """The kind of a change of an expression, and what it becomes."""
    if isinstance(node, ast.Compare):
        for i, old in enumerate(node.ops):
            for new in COMPARISONS[type(old)]:
                yield "comparison", _with(node, ops=[*node.ops[:i], new(), *node.ops[i + 1 :]])
    elif isinstance(node, ast.BoolOp):
        yield "condition", _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield "condition" if isinstance(node.op, ast.Not) else "arithmetic", node.operand
    elif isinstance(node, ast.BinOp):
        if type(node.op) in OPERATORS:
            yield "arithmetic", _with(node, op=OPERATORS[type(node.op)]())
        if isinstance(node.op, (ast.Add, ast.Sub)) and isinstance(node.right, ast.Constant):
            yield "arithmetic", node.left
    elif isinstance(node, ast.Constant):
        for value in _other_values(node.value):
            yield "constant", ast.Constant(value)
    elif isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in NAMES:
            yield "arithmetic", _with(node, func=ast.Name(NAMES[name]))
        for i in range(len(node.args) - 1 if name not in PLAIN else 0):
            yield "arguments", _with(node, args=[*node.args[:i], node.args[i + 1], node.args[i], *node.args[i + 2 :]])


def _other_values(value):
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, (int, float)):
        return [value + 1, value - 1] if value == 1 else [value + 1]
    return []


def _with(node, **fields):
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed
