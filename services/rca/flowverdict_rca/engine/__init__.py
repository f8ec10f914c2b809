"""Which components are behind the bad counts of a table; usable without any service.

`localise`   the components behind the bad counts of one window.
`baseline`   what is normal, learnt from windows of the past.
`search`     the smallest set of faults that makes the counts likely.
`unevenness` how much a fault differs between the rows that it covers.
`poisson`    how likely counts are, with a rate for each fault.
`components` what could be at fault in a table, and which of its rows each covers.
`rows`       a table as arrays.
`shrinkage`  how much each of many counts really differs from what was expected of it.
"""
