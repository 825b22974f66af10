"""promote: register the gate's choice and make it the champion."""
