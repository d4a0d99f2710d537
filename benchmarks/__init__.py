"""The benchmarks of jaxvp: `python -m benchmarks`, or `make bench` and `make bench-quick`.

Every number comes from a process of its own, started by `process.call`, so that one program's
imports, threads and memory are never another's. The chain, one module a stage:

    settings   configs/bench/*.toml -> `Design`s
    data       a design -> a folder with its measurements (written once, read by everybody)
    ours       jaxvp on that folder: cold, warm, memory, evaluations, log-likelihoods
    peers/     mixedlm, statsmodels, lme4 on a sample of its genes, one process a core
    floor      the operations and bytes that the algorithm needs, against the machine's rates
    checks     hard genes, reading and writing, the violin plot, the demo
    table      all of it -> Markdown
    figures    the sweeps -> one picture

`gpu.py` stands alone: one script for a machine with a GPU.
"""
