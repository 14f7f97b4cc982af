"""What runs in the peers' own environments: their workers and producers. Nothing here may use cancelq, except
`cancelq_client`, which is cancelq's own producer."""
