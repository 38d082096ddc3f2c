"""What nvcc made of the CUDA kernels: a table, and an error if it is not as designed.

    python tests/cuda_static_report.py [LIBRARY]

Needs no GPU: `cuobjdump` and `nvdisasm` (nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm
on PyPI) read the machine code in the built library.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

LIBRARY = Path(__file__).parents[1] / "geoseg" / "_C.abi3.so"
MOST_REGISTERS = 64
POINTS = 4  # unrolled in the fast kernels
TYPES = {"f": "float32", "d": "float64", "4Half": "float16", "8BFloat16": "bfloat16"}
# As setup.py builds for; the last one as PTX, too.
ARCHITECTURES = [
    int(name) for name in os.environ.get("GEOSEG_CUDA_ARCHS", "80 90 100").split()
]
# Kernels of shapes known to the compiler.
FAST = (
    ("forward", "fused", "backward", "backward without scatter"),
    ("float32", "float16", "bfloat16"),
    (32, 64, 128),
    (1, 3),
)

KERNEL = re.compile(
    r"_ZN6geoseg4cuda\d+(?P<name>forward|backward|owner)_kernelI"
    r"(?P<dtype>f|d|NS0_4HalfE|NS0_8BFloat16E)"
    r"(?:NS0_\d+(?P<source>Given|Raw)Points\w+?E)?"
    r"(?:E?NS0_5FixedILi(?P<dim>\d+)ELi(?P<levels>\d+)ELi(?P<points>\d+)EEE)?"
    r"(?:Lb(?P<aligned>[01])E)?(?:Lb(?P<scatters>[01])E)?"
)
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]+)")


@dataclass
class Kernel:
    """One kernel of one architecture."""

    symbol: str
    """Mangled name."""
    architecture: int
    """Compute capability, 80 for 8.0."""
    usage: dict[str, int] = field(default_factory=dict)
    """REG, STACK, SHARED and so on, as the compiler counted them."""
    instructions: Counter[str] = field(default_factory=Counter)
    """How often each occurs."""

    @property
    def parts(self) -> dict[str, str | None]:
        """Name, dtype and template arguments."""
        found = KERNEL.match(self.symbol)
        if found is None:
            raise SystemExit(f"{self.symbol} is no kernel that this report knows")
        return found.groupdict()

    @property
    def title(self) -> str:
        """How the table names it."""
        parts = self.parts
        name = str(parts["name"])
        if parts["source"] == "Raw":
            name = "fused"
        if parts["scatters"] == "0":
            name += " without scatter"
        kind = str(parts["dtype"]).removeprefix("NS0_").removesuffix("E")
        shape = f"D {parts['dim']} L {parts['levels']}" if self.fast else "any"
        if parts["aligned"] == "0":
            shape = "any, scalar"
        return f"{name:<24} {TYPES[kind]:<9} {shape:<12}"

    @property
    def fast(self) -> bool:
        """Whether its shape is known to the compiler."""
        return self.parts["dim"] not in (None, "0")

    def count(self, pattern: str) -> int:
        """Count instructions whose name begins with a pattern."""
        return sum(
            n for name, n in self.instructions.items() if re.match(pattern, name)
        )

    @property
    def counts(self) -> dict[str, int]:
        """Registers, bytes of stack, and the instructions that the design is about."""
        return {
            "registers": self.usage["REG"],
            "stack": self.usage["STACK"],
            "local": self.count(r"(LDL|STL)\b") + self.usage.get("LOCAL", 0),
            "load 16": self.count(r"LDG\.E\.128"),
            "red x4": self.count(r"REDG?\..*(x4|128)"),
            "red x1": self.count(r"(REDG?|ATOMG?)\.(?!.*(x4|128))"),
        }

    def faults(self) -> Iterator[str]:
        """Say what is not as designed."""
        counts = self.counts
        if counts["stack"] or counts["local"]:
            yield "uses local memory: it spills"
        if not self.fast:
            return
        if counts["registers"] > MOST_REGISTERS:
            yield f"takes more than {MOST_REGISTERS} registers"
        name = self.parts["name"]
        if name == "forward" and counts["load 16"] != 4 * POINTS:
            yield f"has not four 16-byte loads for each of {POINTS} points"
        if name == "backward":
            vectors = 4 if self.architecture >= 90 and self._scatters else 0
            scalars = 16 if self.architecture < 90 and self._scatters else 0
            if (counts["red x4"], counts["red x1"]) != (vectors, scalars):
                yield f"has not {vectors} additions of vectors and {scalars} of scalars"

    @property
    def _scatters(self) -> bool:
        return self.parts["scatters"] == "1"


def read_kernels(library: Path) -> list[Kernel]:
    """Read all kernels of a library, architecture by architecture."""
    kernels: dict[tuple[int, str], Kernel] = {}

    def kernel(architecture: int, symbol: str) -> Kernel:
        found = Kernel(symbol, architecture)
        return kernels.setdefault((architecture, symbol), found)

    architecture, current = 0, None
    for line in _cuobjdump("-res-usage", library):
        if found := re.match(r"arch = sm_(\d+)", line):
            architecture = int(found[1])
        elif found := re.search(r"Function (\w+):", line):
            current = kernel(architecture, found[1])
        elif current is not None and "REG:" in line:
            numbers = re.findall(r"(\w+):(\d+)", line)
            current.usage = {name: int(number) for name, number in numbers}
    for line in _cuobjdump("-sass", library):
        if found := re.match(r"arch = sm_(\d+)", line):
            architecture = int(found[1])
        elif found := re.search(r"Function : (\w+)", line):
            current = kernel(architecture, found[1])
        elif current is not None and (found := INSTRUCTION.match(line)):
            current.instructions[found[1]] += 1
    return list(kernels.values())


def gaps(kernels: list[Kernel], ptx: list[int]) -> Iterator[str]:
    """Say which kernel the library should hold, and for which GPU, and does not."""
    wanted = [
        f"{name:<24} {kind:<9} {f'D {dim} L {levels}':<12}"
        for name, kind, dim, levels in itertools.product(*FAST)
    ]
    for architecture in ARCHITECTURES:
        found = {k.title for k in kernels if k.architecture == architecture}
        for title in wanted:
            if title not in found:
                yield f"sm_{architecture} lacks {' '.join(title.split())}"
    if ARCHITECTURES[-1] not in ptx:
        yield f"there is no PTX of {ARCHITECTURES[-1]} for newer GPUs"


def read_ptx(library: Path) -> list[int]:
    """Read for which architectures the library holds PTX."""
    lines = _cuobjdump("-lptx", library)
    return [int(n) for n in re.findall(r"sm_(\d+)\.ptx", "\n".join(lines))]


def _cuobjdump(option: str, library: Path) -> list[str]:
    folders = [_folder_of("nvidia-cuda-cuobjdump", "cuobjdump")]
    folders.append(_folder_of("nvidia-cuda-nvdisasm", "nvdisasm"))
    path = os.pathsep.join([*filter(None, folders), os.environ["PATH"]])
    program = shutil.which("cuobjdump", path=path)
    if program is None:
        raise SystemExit(
            "cuobjdump is missing: pip install nvidia-cuda-cuobjdump "
            "nvidia-cuda-nvdisasm"
        )
    done = subprocess.run(
        [program, option, str(library)],
        env={**os.environ, "PATH": path},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"cuobjdump cannot read {library}: {done.stderr.strip()}")
    return done.stdout.splitlines()


def _folder_of(package: str, program: str) -> str | None:
    """Find where pip put a program that its package does not put on PATH."""
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        return None
    found = [file for file in files if file.name == program]
    return str(Path(str(found[0].locate())).parent) if found else None


def main() -> int:
    """Print the table; return 1 if a kernel is not as designed."""
    library = Path(sys.argv[1]) if len(sys.argv) > 1 else LIBRARY
    kernels = read_kernels(library)
    if not kernels:
        raise SystemExit(f"{library} holds no CUDA kernels; build it where nvcc is")
    faults = 0
    heads = [*kernels[0].counts]
    sys.stdout.write(f"sm   {'kernel':<47} {'  '.join(heads)}\n")
    for kernel in sorted(kernels, key=lambda k: (k.architecture, k.title)):
        counts = kernel.counts
        cells = "  ".join(f"{counts[head]:>{len(head)}}" for head in heads)
        sys.stdout.write(f"{kernel.architecture:<4} {kernel.title} {cells}\n")
        for fault in kernel.faults():
            faults += 1
            sys.stdout.write(f"     FAULT: {fault}\n")
    for gap in gaps(kernels, read_ptx(library)):
        faults += 1
        sys.stdout.write(f"FAULT: {gap}\n")
    sys.stdout.write(f"{len(kernels)} kernels, {faults} faults\n")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
