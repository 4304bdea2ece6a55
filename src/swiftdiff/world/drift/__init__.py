"""How far clips stray from their beginning, beside the ground truth's own drift."""
