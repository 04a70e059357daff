"""Time of commands that compute nothing, beside Python that starts and imports typer: the best of several starts.

python benchmarks/command_start.py [REPEATS]

Starts of the command and of the floor alternate. Each line ends with the three imports that are slowest by themselves.
"""

import subprocess
import sys
import time

COMMANDS = ("--version", "--help", "jobs list", "stduy x", "run none.yaml", "evaluate none", "schema", "watch none")
MAIN = "import sys; sys.argv[0] = 'fedsim'; from fedsim.cli import main; main()"
FLOOR = [sys.executable, "-c", "import typer"]


def seconds_of(call: list[str]) -> float:
    """Seconds from a call's start to its end."""
    begun = time.perf_counter()
    subprocess.run(call, capture_output=True, check=False)
    return time.perf_counter() - begun


def main() -> None:
    """Print one line per command."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for command in COMMANDS:
        call = [sys.executable, "-c", MAIN, *command.split()]
        pairs = [(seconds_of(call), seconds_of(FLOOR)) for _ in range(repeats)]
        best, floor = (min(times) for times in zip(*pairs, strict=True))
        traced = subprocess.run([call[0], "-X", "importtime", *call[1:]], capture_output=True, text=True, check=False)
        lines = [line[12:].split("|") for line in traced.stderr.splitlines() if line.startswith("import time:")][1:]
        slowest = sorted(lines, key=lambda line: -int(line[0]))[:3]
        shown = ", ".join(f"{line[2].strip()} {int(line[0]) / 1000:.0f} ms" for line in slowest)
        print(
            f"fedsim {command:14} {best:.2f} s, floor {floor:.2f} s, ratio {best / floor:.2f}; "
            f"own time of imports: {shown}"
        )


if __name__ == "__main__":
    main()
