"""Gives flows their Kubernetes names: `flows.raw.>` in, `flows.enriched` out.

`server`      the service: its life.
`enriching`   raw messages to enriched ones, with all that has to be known for that.
`directory`   who had an address, and when.
`tenures`     how long each owner has had an address.
`pod_networks`  the networks that pods get their addresses from.
`connections`  which pod answers each connection to a service's address.
`host_pods`   pods on their node's network, and which of its sockets is whose.
`local_hops`  connections to a sidecar in the same pod, which look like connections to elsewhere.
`backends`    the pods behind each service.
`records`     what raw records say about the ends of their connections.
`recent`      what was learnt lately.
`reports`     until when each node has reported.
`enrich`      raw records and a directory to an enriched batch.
`clocks`      dates the intervals of nodes whose clocks are wrong.
`inventory`   names from a file.
`kubernetes`  lists and watches a cluster's API; `cluster` turns its `objects` into names.
`objects`     the objects of that API, with the fields that are read.
`known`       what is remembered of pods and endpoint slices, and no more.
`workloads`   what controls each pod.
`labels`      those of pods by which flows are told apart.
`entered_addresses`  which service an address stands for that somebody entered in a slice.
`containers`  names from Docker.
"""
