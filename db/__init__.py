"""Postgres. The only room with SQL; each function does one statement to rows and says which lock it takes."""
