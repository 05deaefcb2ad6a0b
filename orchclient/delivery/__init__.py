"""The way out: election, workers, transport, housekeeping. No transaction is open while the network is used."""
