"""`python -m kilter`, and `torchrun -m kilter`: the command line."""

from kilter.cli import main

main()
