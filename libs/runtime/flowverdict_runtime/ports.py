"""The TCP port that each service listens on unless FLOWVERDICT_LISTEN says otherwise."""

__all__ = ["PORTS"]

PORTS = {
    "exporter": 9191,
    "collector": 9192,
    "enricher": 9193,
    "rca": 9194,
    "influx-writer": 9195,
}
