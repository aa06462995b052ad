"""MetaAdamW: AdamW whose step and decay a small Transformer scales, group by group."""
