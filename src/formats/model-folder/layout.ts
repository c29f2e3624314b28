/** Common parts of the layouts of model folders. */

/** A folder that holds a model and what it needs to run. */
export interface ModelFolder {
  readonly path: string;
  readonly layout: 'ONNX Runtime GenAI' | 'transformers.js';
  /** The model's file; as all names here it is relative to the folder, with `/`. */
  readonly model: string;
  /** Other models that run beside it: encoders, embeddings. */
  readonly parts: readonly string[];
  /** Other forms of the same model. Their weights stay what they are when those of the model change. */
  readonly forms: readonly string[];
  /** Other files that the configuration names. */
  readonly named: readonly string[];
}

/** One way to lay out a folder. */
export interface Layout {
  /** The files by which it is recognized, in words. */
  readonly mark: string;
  /**
   * @param chosen the model's file, where it is not for the layout's rule to choose
   * @returns undefined for a folder that is laid out in another way
   * @throws OnnxLoraError where the folder does not say which file is the model
   */
  find(folder: string, chosen?: string): ModelFolder | undefined;
}
