"""Reads metrics from stdin as Prometheus' own parsers do, and prints the name and type of each; the argument is the format."""

import sys

from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

parse = {"openmetrics": openmetrics, "text": parser}[sys.argv[1]].text_string_to_metric_families
for family in parse(sys.stdin.read()):
    assert family.samples, family.name
    print(family.name, family.type, len(family.samples))
