"""Text from a language model: tokenizer, sampling, stop words and the loop that feeds a sequence its own tokens."""
