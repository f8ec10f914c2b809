"""What is measured, and how. `script/bench --help` lists it."""
