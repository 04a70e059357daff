"""`python -m fedsim`: the same as the command `fedsim`."""

from fedsim.cli import main

if __name__ == "__main__":
    main()
