"""A language model behind an OpenAI-compatible endpoint: vLLM, TGI, or a hosted one."""
