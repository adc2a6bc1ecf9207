"""``python -m revbench.probes``: the reference of all probes that there are here, as Markdown."""

from revbench.probes.reference import reference_of
from revbench.probes.registry import registry
from revbench.terminal import say

if __name__ == "__main__":
    for line in reference_of(registry().probes.values()).splitlines():
        say(line)
