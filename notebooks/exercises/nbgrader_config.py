"""nbgrader's settings for a course folder; `make classroom` copies this file there."""

import sys

c = get_config()  # noqa: F821  (nbgrader defines it)

c.CourseDirectory.course_id = "implicitprm"

# Limits of submitted code: seconds per cell, lines of output per cell, and bytes of memory.
c.Execute.timeout = 120
c.Execute.iopub_timeout = 30  # what an interrupted kernel may take to say that it was
c.LimitOutput.max_lines = 200
MEMORY_BYTES = 4 * 2**30
if sys.platform == "linux":  # other systems do not enforce this limit
    c.Execute.extra_arguments = [
        "--IPKernelApp.exec_lines=import resource; "
        f"resource.setrlimit(resource.RLIMIT_DATA, ({MEMORY_BYTES}, {MEMORY_BYTES})); del resource"
    ]

# A student who deletes a test's cell gets it back before grading.
c.OverwriteCells.add_missing_cells = True
