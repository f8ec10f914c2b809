"""The benchmarks. `script/bench --help` lists them."""
