"""`python -m ambit` is the `ambit` command."""

from ambit.cli import main

main()
