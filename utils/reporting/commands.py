"""The commands that make the files of a report, for messages."""

from utils.pipeline.steps import get_step

STEP_02 = get_step("02").command
STEP_03 = get_step("03").command
STEP_03_MISSING = f"step 03 has not run; run it with the same --config: {STEP_03}"
