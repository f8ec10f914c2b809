"""Which retransmission ratio is too high for a pair: one threshold, or by what it had before.

`history`      remembers the ratios, and asks the detector that is set.
`statistical`  detectors by mean, deviation and percentile.
`learned`      detectors that learn (extra `detectors`).
"""
