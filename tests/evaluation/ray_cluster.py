"""A Ray cluster of two nodes on this machine: prints its address, kills a node at the line
``kill``, ends at the end of its input.

A process of its own, because Ray ends the process of a driver or head whose cluster is lost, and
that must not be pytest's.
"""

from __future__ import annotations

import sys

PREFIX = "cluster: "


def main() -> None:
    from ray.cluster_utils import Cluster

    from utils.evaluation.cluster import OBJECT_STORE_BYTES

    node = {"num_cpus": 1, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    # A node that is killed refuses at once; one that is only slow has ten seconds.
    health = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 1000,
        "health_check_failure_threshold": 10,
    }
    cluster = Cluster(initialize_head=True, head_node_args={**node, "_system_config": health})
    worker = cluster.add_node(**node)
    print(f"{PREFIX}{cluster.address}", flush=True)
    for line in sys.stdin:
        if line.strip() == "kill":
            cluster.remove_node(worker, allow_graceful=False)
            print(f"{PREFIX}killed", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
