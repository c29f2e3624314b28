"""Encodes the lines of a file (one JSON string each) with Hugging Face's tokenizers: one list of ids a line."""
import json
import sys

from tokenizers import Tokenizer

tokenizer_path, lines_path = sys.argv[1:]
tokenizer = Tokenizer.from_file(tokenizer_path)
tokenizer.no_truncation()
tokenizer.no_padding()
with open(lines_path, encoding="utf8") as file:
    lines = [json.loads(line) for line in file]
for encoding in tokenizer.encode_batch(lines):
    print(json.dumps(encoding.ids))
