"""Network pieces that several rooms need."""
