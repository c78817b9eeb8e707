"""`python -m calico`: the command, of the interpreter that is named."""

from calico.cli.main import main

main(prog_name="calico")
