/** The model that generates, in a session: as it is, or with adapters in its slots. */
import { PatchedModel } from '../../adapters/model/patched.js';
import { AdapterSession } from '../../adapters/slots/adapter-session.js';
import { OnnxLoraError } from '../../errors.js';
import type { Model } from '../../onnx/model.js';
import type { ProviderName } from '../../runtime/provider-names.js';
import { folderOf, runnableForm } from '../../runtime/runnable-form.js';
import { openSession } from '../../runtime/session.js';
import type { Feeds } from '../../runtime/tensor-value.js';
import type { Runner } from './decoder.js';
import { type GeneratorOptions, namedAdapters } from './options.js';

/** A session whose adapter can be changed between runs. */
export interface AdapterRunner extends Runner {
  /** The adapters in the order in which they were given. */
  readonly adapters: readonly string[];
  /** The one in use; undefined for the base. */
  adapter: string | undefined;
  /** Inputs that are not the model's own: those of slots. */
  readonly own: ReadonlySet<string>;
  release(): Promise<void>;
}

type Options = Pick<GeneratorOptions, 'adapter' | 'threads' | 'guard'> & {
  readonly provider: ProviderName;
};

/**
 * Opens the model at `path`, which `model` was read from.
 * @throws OnnxLoraError `invalid-argument` for adapters where the model has no slots; those of
 * `openSession` and `AdapterSession`
 */
export async function openRunner(
  path: string,
  model: Model,
  { adapter, threads, guard, provider }: Options,
): Promise<AdapterRunner> {
  const given = namedAdapters(adapter);
  const { slots } = new PatchedModel(model);
  if (slots?.mode === 'required') {
    const own = new Set(slots.slots.flatMap(({ a, b }) => [a, b]));
    const session = await AdapterSession.open(path, { threads, provider, guard });
    try {
      for (const { name, path: file } of given) session.load(name, file);
    } catch (error) {
      await session.release();
      throw error;
    }
    return new SlottedRunner(session, own);
  }
  if (given.length > 0) throw slots ? optionalSlots(path) : noSlots(path);
  const externalFolder = folderOf(model);
  const form = await runnableForm(model, provider, externalFolder);
  const session = await openSession(form ?? path, {
    ...{ threads, provider },
    externalFolder: form && externalFolder,
  });
  return {
    ...{ adapters: [], adapter: undefined, own: new Set(), outputs: session.outputs },
    run: (feeds) => session.run(feeds),
    release: () => session.release(),
  };
}

class SlottedRunner implements AdapterRunner {
  adapter: string | undefined;

  constructor(
    private readonly session: AdapterSession,
    readonly own: ReadonlySet<string>,
  ) {
    this.adapter = this.adapters[0];
  }

  get adapters(): readonly string[] {
    return this.session.adapters.map(({ name }) => name);
  }

  get outputs() {
    return this.session.outputs;
  }

  run(feeds: Feeds) {
    return this.session.run(feeds, { adapters: this.adapter ?? [] });
  }

  release(): Promise<void> {
    return this.session.release();
  }
}

function optionalSlots(path: string): OnnxLoraError {
  return new OnnxLoraError(
    'invalid-argument',
    `${path} has optional slots, which ONNX Runtime for Node cannot feed, expected required ones`,
    { hint: 'Make a model with such slots from the base model: `patch(model, { slots: true })`.' },
  );
}

function noSlots(path: string): OnnxLoraError {
  return new OnnxLoraError('invalid-argument', `${path} has no slots for adapters`, {
    hint: 'Make a model with slots from the base model: `patch(model, { slots: true })`. Or put the adapter into it: `apply(model, adapter)`.',
  });
}
