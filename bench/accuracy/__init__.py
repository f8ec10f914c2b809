"""`script/bench accuracy`: how often the right component is named, in generated clusters.

`clusters`  generated clusters, their traffic and their faults.
`cells`     what is tried: kinds and sizes of faults, and what makes them hard to see.
`rivals`    other ways to localise, from their papers.
`trials`    runs a cell, and compares what was named with what was broken.
"""
