"""``python -m revbench``: the command line."""

from revbench.cli import main

if __name__ == "__main__":
    main()
