"""Kernels that are made from a table: a template of an operation, filled in for a row, whose formulas have the row's name.

A kernel is made when it is first asked for. So rows that nobody uses cost nothing.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """options: numbers, in the order in which kernels take them, whose names no kernel has for something else. saves: "x" or "y", which
    of the two backward gets."""

    name: str
    options: tuple[str, ...] = ()
    saves: str = "x"


def filled(template, row):
    """The source of a row's kernel: NAME, what it saves, its options as parameters and arguments, as a tuple, and in dtype T."""
    listed = ", ".join(row.options) + "," * (len(row.options) == 1)
    text = template.replace(", OPTIONS", "".join(f", {option}" for option in row.options)).replace("TUPLE", f"({listed})")
    text = text.replace("(TYPED)", f"({''.join(f'T({option}), ' for option in row.options)})")
    text = text.replace(", TYPED", "".join(f", T({option})" for option in row.options))
    return text.replace("SAVED", row.saves).replace("NAME", row.name)


def made_from_table(module, templates, make, rows, suffixes=("",)):
    """`__getattr__` and `__dir__` of a module, given by its globals, whose kernels are made from a table.

    Args:
        templates: {"NAME_forward": its source}. make: (name, source, row) -> everything that the source defines.
        rows: of the table. suffixes: of the functions that a template defines.
    """
    names = {kernel.replace("NAME", row.name): (template, row) for kernel, template in templates.items() for row in rows}

    def made(name):
        template, row = names[name]
        return make(name, filled(template, row), row)

    return made_on_demand(module, names, made, suffixes)


def made_on_demand(module, names, make, suffixes=("",)):
    """`__getattr__` and `__dir__` of a module, given by its globals.

    Args:
        names: of the kernels. suffixes: of the functions of each kernel.
        make: name -> {name + suffix: function}, and whatever else its source defines.
    """

    def find(attribute):
        for suffix in suffixes:
            name = attribute.removesuffix(suffix)
            if attribute.endswith(suffix) and name in names:
                defined = make(name)
                module.update({name + each: defined[name + each] for each in suffixes})
                return module[attribute]
        raise AttributeError(f"module {module['__name__']!r} has no attribute {attribute!r}")

    def listed():
        return sorted({*module, *(name + suffix for name in names for suffix in suffixes)})

    return find, listed
