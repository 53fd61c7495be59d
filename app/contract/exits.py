"""Exit codes: the last thing that a process can say."""

OK = 0
REFUSED_SETTING = 2
"""The entrypoint: a setting, the port, the state directory or the checkpoint is wrong."""
REFUSED_PLAN = 3
"""The entrypoint: nothing fits, or a GPU is required and there is none."""

ENGINE_OUT_OF_MEMORY = 40
ENGINE_BAD_CHECKPOINT = 41
ENGINE_SELF_TEST = 42
LIFELINE_CUT = 43
"""A child whose supervisor has ended."""
FETCH_FAILED = 44
"""The download gave up; its last event says why."""
