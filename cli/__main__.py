"""`python -m cli`, for those who run from a checkout."""

from cli.main import main

main()
