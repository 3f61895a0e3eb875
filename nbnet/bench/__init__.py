"""What `nbnet bench` runs: every contender in its own process, checked against the NumPy reference, then timed in turns.

    workloads   every workload: its arrays, its count of operations and bytes
    networks    the networks whose training steps are measured, independent of any framework; counts: their cost
    worker      a contender's process: builds a workload, runs it for the check, times it
    ours        nbnet's backends as contenders
    peers/      one module per framework
    floors      the machine as a contender: memory copies, FMA loops
    contenders  starts the processes; measure, plan: who runs when; results, tables, charts: the report

A peer's process imports `worker`, `workloads`, `networks` and `counts`, which need NumPy alone: its start and memory are its own.
"""
