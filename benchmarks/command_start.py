"""Time of commands that compute nothing: the best of several starts, and their three slowest imports.

python benchmarks/command_start.py [REPEATS]
"""

import subprocess
import sys
import time

COMMANDS = ("--version", "--help", "jobs list", "stduy x", "run none.yaml", "evaluate none", "schema", "watch none")
MAIN = "import sys; sys.argv[0] = 'fedsim'; from fedsim.cli import main; main()"


def main() -> None:
    """Print one line per command."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for command in COMMANDS:
        call, seconds = [sys.executable, "-c", MAIN, *command.split()], []
        for _ in range(repeats):
            begun = time.perf_counter()
            subprocess.run(call, capture_output=True, check=False)
            seconds.append(time.perf_counter() - begun)
        traced = subprocess.run([call[0], "-X", "importtime", *call[1:]], capture_output=True, text=True, check=False)
        lines = [line[12:].split("|") for line in traced.stderr.splitlines() if line.startswith("import time:")][1:]
        slowest = sorted(lines, key=lambda line: -int(line[0]))[:3]
        shown = ", ".join(f"{line[2].strip()} {int(line[0]) / 1000:.0f} ms" for line in slowest)
        print(f"fedsim {command:14} {min(seconds):.2f} s   own time of imports: {shown}")


if __name__ == "__main__":
    main()
