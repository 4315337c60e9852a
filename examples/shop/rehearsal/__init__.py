"""What the demo and the acceptance tests play: the example project, its processes, the move, and the count."""
