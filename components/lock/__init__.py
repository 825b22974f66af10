"""lock: what the stages depend on beside files, their code and the settings that decide results, by digest."""
