"""Records of checked arrays; they compute nothing."""
