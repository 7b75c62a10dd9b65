"""`python -m unlearned`."""

from unlearned.cli import main

main()
