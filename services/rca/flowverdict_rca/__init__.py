"""Judges which component is behind failing flows: `flows.enriched` in, `rca.verdicts` out.

`command`    the command line.
`server`     the service; `state` what it saves in NATS so that a restart loses nothing.
`recovered`  where a worker begins whose state is lost: at its last verdicts.
`publishing` publishes verdicts, whatever NATS takes of them.
`lease`      which of several workers judges, while the others stand by.
`window_judge` judges short and long windows, and knows what is open and what is normal.
`panes`      groups enriched rows into windows by event time; decides when one is complete.
`pane`       what was counted in one length of time.
`nodes`      which nodes report, which are silent, which have just been heard again.
`late`       counts rows that arrive after their window was judged.
`unready`    for how long services have been without a ready endpoint.
`window`     a window as a table: what every pair counted in each pane.
`answered`   counts what a service's pods answered as attempts to connect to the service, too.
`pair_positions` where in a window's tables a pair is, by its ends.
`drop_reasons` why kernels dropped packets, by pair.
`failed_names` which names could not be looked up, by pair.
`passage`    what became of the segments that one end sent, by the other end's count.
`decisions`  whether each pair of a window is OK or FAIL.
`comparable` which pairs can be compared with those that fail.
`shares`     how many of a pair's attempts go wrong, and whether that is too many or chance.
`detectors`  which ratio is too high for a pair, by a threshold or its past.
`facts`      what the cluster itself knows about a window; `known` the causes that follow from it.
`kernel_logs` what nodes' kernels have reported lately.
`failures`   what is behind failing pairs, by `localise`.
`backends`   attributes what callers of a service suffer to the one pod that is broken.
`roles`      which components take part in which pairs.
`ranking`    the components that explain the failing pairs.
`engine`     `localise` and `learn`: the components behind the bad counts of any table.
`mining`     association rules over pairs (Apriori).
`transactions` the pairs of a window as that needs them.
`conditions` what was observed of each pair.
`judgement`  the judgement of a window, and the verdict document; `summary` its summary.
`low_loss`   judges losses too low to make a flow fail; `window_table` the table it does that with.
`above_normal` judges what is above normal; `measured` what is measured of pairs.
`usual`      what is normal for each pair.
`measured_summary` the sentence about it.
`waiting`    which servers answer late only because they wait for others.
`suspects`   what the engine's causes are in the window.
`servers_at_fault` the same as people name them: who is called rather than who calls.
`withheld`   findings that nodes which are not heard could change.
`normal`     what is normal, as kept over a restart.
`incidents`  turns judgements over time into verdicts: opened, ongoing, resolved.
`incident`   what is remembered of each; `matching` which one it is that a window shows.
`offline`    the command `analyse`; `series` reads the file.
`prometheus` the command `fetch`.
`report`     the command `report`: one HTML file about one incident.
"""

from flowverdict_rca.engine.baseline import Baseline, learn
from flowverdict_rca.engine.localise import Cause, Verdict, localise

__all__ = ["Baseline", "Cause", "Verdict", "learn", "localise"]
