"""Programs that embed a client in the ways in which agents live, each in a process of its own."""
