"""Kernels that a module makes when they are first asked for, so that those which nobody uses cost nothing."""


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
