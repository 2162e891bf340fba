"""How flowtrio is proven: worlds made from seeds, judged by the laws; see `docs/proof.md`."""
