/** Options of texts. */
export interface TextOptions {
  /** A `tokenizer.json`, or a folder with one and its `tokenizer_config.json`. */
  readonly tokenizer?: string | undefined;
  /** The field of a row that holds the text. Default: a name that is common for it. */
  readonly textField?: string | undefined;
  /** The field with the second text. */
  readonly textPairField?: string | undefined;
  /** Of pairs: the field with a text that is not the one to find. */
  readonly textNegativeField?: string | undefined;
  /** The field of rows that holds the label, or the path to it. Default: `label`, or what stands for one. */
  readonly labelField?: string | undefined;
  /** Most tokens of a sample. Default: what tokenizer and model say. */
  readonly maxLength?: number | undefined;
  /** false: a text of more tokens is a bad row. Default true. */
  readonly truncate?: boolean | undefined;
}
