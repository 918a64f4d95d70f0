"""From a profiled run to the verdict: operators, modules, ceilings, bottlenecks."""
