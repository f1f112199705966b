"""Commands that only notebooks/README.md holds run, too: see ``test_documented_commands.py``."""

import pytest
import test_documented_commands as documented

sandbox = documented.sandbox
README, NOTEBOOKS = documented.COMMANDS.values()


@pytest.mark.parametrize("command", [command for command in NOTEBOOKS if command not in README])
def test_command_runs(command, sandbox):
    documented.run_command(command, sandbox)
