"""The batch-size sweep: samples, schedule, statistics, and the row of each batch size."""
