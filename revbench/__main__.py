"""``python -m revbench``: the command line."""

from revbench.imports import forget_current_folder

if __name__ == "__main__":
    forget_current_folder()  # before anything else is imported
    from revbench.cli import main

    main()
