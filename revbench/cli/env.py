"""``revbench env``: this machine."""

from __future__ import annotations

from revbench.cli.app import app
from revbench.cli.options import Json
from revbench.terminal import say, say_json


@app.command()
def env(as_json: Json = False) -> None:
    """Describe this machine as its rows do."""
    from revbench.runner.client import WorkerServer
    from revbench.runner.environment import lines_of

    with WorkerServer() as server:
        environment = server.environment()
    if as_json:
        say_json(environment)
        return
    for line in lines_of(environment):
        say(line)
