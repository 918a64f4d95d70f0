"""What the command line shows of a comparison, without the libraries that comparing needs."""

from __future__ import annotations

DEFAULT_MARGIN = 0.02
"""The largest relative difference that counts as equivalent."""
GATE_EXAMPLES = '"throughput<-5%", "latency_p99@8>+10%", "accuracy<-0.5pp"'
