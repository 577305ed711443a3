"""`python -m kilter` is the `kilter` command."""

from kilter.cli import main

if __name__ == "__main__":
    main()
