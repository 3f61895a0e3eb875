"""What `nbnet bench` measures: the workloads, the peers, and the floors of the machine.

Each contender runs in a process of its own (`worker`), which imports from here and not from nbnet: a peer's start and memory
must not hold ours.

    workloads   every workload: its arrays, its count of operations and bytes
    networks    the networks whose training steps are measured, in no framework's words, and their counts
    worker      the process: builds a workload for one contender, checks it, times it
    ours        nbnet's backends as contenders
    floors      the machine as a contender: memory copies, loops of nothing but FMA
    peers/      one module a peer
"""
