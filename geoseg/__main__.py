"""`python -m geoseg` is the `geoseg` command."""

from geoseg.cli.main import run

if __name__ == "__main__":
    run()
