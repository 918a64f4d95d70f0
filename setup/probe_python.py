"""Print what setup_environment.sh decides by, on one line.

The line has Python's version, PyTorch's version, the CUDA version that PyTorch was built for ("-"
where there is none) and the path of the interpreter, which may have spaces and so comes last.

Inside a virtual environment it describes the Python that the environment was made from. PyTorch is
not imported: its version file is read, which takes no time. Runs on any Python 3, so that an old
one can be refused by name.
"""

import os
import runpy
import sys


def torch_build():
    """(version, CUDA version) of the PyTorch of this interpreter; "-" for what is absent."""
    from importlib.util import find_spec

    spec = find_spec("torch")
    if spec is None or not spec.origin:
        return "-", "-"
    try:
        values = runpy.run_path(os.path.join(os.path.dirname(spec.origin), "version.py"))
    except OSError:
        return "-", "-"
    return str(values.get("__version__") or "-"), values.get("cuda") or "-"


def main():
    """Print the line, or let the base interpreter print it."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    if sys.prefix != sys.base_prefix and base != sys.executable:
        os.execv(base, [base, os.path.abspath(__file__)])
    version, cuda = torch_build()
    python = ".".join(map(str, sys.version_info[:3]))
    print(python, version, cuda, os.path.realpath(sys.executable))


if __name__ == "__main__":
    main()
