"""What the methods share, and what predicting with one needs: nothing here trains."""
