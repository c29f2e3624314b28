/** One model in memory and many adapters, chosen at each run. */
import { OnnxLoraError } from '../../errors.js';
import { handler, type OptionsOf } from '../../options/option.js';
import { resolveOptions } from '../../options/resolve.js';
import { choice, list, object, text, toggle, union } from '../../options/schemas.js';
import { feedsOf, type GivenFeeds } from '../../runtime/given-feeds.js';
import { type ProviderName, providerNames } from '../../runtime/provider-names.js';
import { resolveProvider } from '../../runtime/providers.js';
import { folderOf, runnableForm } from '../../runtime/runnable-form.js';
import { openSession, type Session, type ValueMeta } from '../../runtime/session.js';
import { type OpenSessionOptions, sessionOptions } from '../../runtime/session-options.js';
import type { Feeds, TensorValue } from '../../runtime/tensor-value.js';
import { OpenedModel } from '../model/opened.js';
import type { PatchedModel } from '../model/patched.js';
import type { SlotManifest } from '../model/slot-manifest.js';
import { activate } from './activate.js';
import { loadAdapter, type SlotAdapters } from './load.js';
import { compareWithBase, runBase, type SlotGuardReport } from './slot-guard.js';

const ownOptions = {
  /** Default `cpu`; `auto` takes the fastest that works. */
  provider: handler(choice(['auto', ...providerNames]), { default: 'cpu' }),
  /** false: do not compare the model with its base when it is opened. */
  guard: handler(toggle, { default: true }),
};

const adapterSessionOptions = { ...sessionOptions, ...ownOptions };

/** Options of opening an `AdapterSession`. */
export interface AdapterSessionOptions
  extends Omit<OpenSessionOptions, 'provider'>,
    OptionsOf<typeof ownOptions> {}

/** An adapter with the weight that its ΔW gets, which may be negative. */
export interface WeightedAdapter {
  /** Name of a loaded adapter. */
  readonly name: string;
  /** Default 1. */
  readonly weight?: number | undefined;
}

type Chosen = string | WeightedAdapter;

const runOptions = {
  /** One adapter, or several at once. Default: none, the base model. */
  adapters: handler(
    union(
      [text, list(union([text, object<WeightedAdapter>('')], 'a name or { name, weight }'), 0)],
      'a name, or a list of names and { name, weight }',
    ),
    { default: [] },
  ),
};

/** Which of the loaded adapters a run uses. */
export interface AdapterRunOptions extends OptionsOf<typeof runOptions> {}

/** An adapter in a session. */
export interface LoadedAdapter {
  /** The name that runs use it by. */
  readonly name: string;
  /** The file or folder that it came from. */
  readonly path: string;
  /** The number of slots that it fills. */
  readonly slots: number;
  /** Memory that its numbers take; while it is at work, the tensors of its inputs come on top. */
  readonly bytes: number;
}

interface Loaded extends LoadedAdapter {
  readonly adapters: SlotAdapters;
}

// Each holds the inputs of all slots: enough for the adapters that take turns, and an end to it.
const MAX_ACTIVATIONS = 16;

/**
 * A model with slots (see `addSlots`) in ONNX Runtime, and adapters of any format, structure and rank.
 * With several adapters it computes `W + Σ weightᵢ · scaleᵢ · Aᵢ · Bᵢ`.
 *
 * The session runs in the caller's process, and ONNX Runtime maps external data. Before each run the sizes of the
 * data files are looked at; one that is cut off during a run ends the process (SIGBUS). Replace such files by
 * renaming, or keep a copy.
 * @example
 * ```ts
 * import { AdapterSession, openDataset } from 'onnx-lora';
 *
 * const session = await AdapterSession.open('model.slots.onnx');
 * session.load('german', 'german.safetensors');
 * session.load('formal', 'formal.safetensors');
 *
 * const data = await openDataset('test.safetensors');
 * const feeds = await data.batch([0, 1, 2, 3], ['input_ids', 'attention_mask']);
 * const base = await session.run(feeds);
 * const one = await session.run(feeds, { adapters: 'german' });
 * const both = await session.run(feeds, {
 *   adapters: [{ name: 'german', weight: 0.7 }, 'formal'],
 * });
 * for (const outputs of [base, one, both]) console.log(outputs.get('logits')?.data);
 * data.close();
 * await session.release();
 * ```
 */
export class AdapterSession {
  private readonly loaded = new Map<string, Loaded>();
  /** Inputs of the slots by the adapters at work, the last used at the end. */
  private readonly activations = new Map<string, Feeds>();

  private constructor(
    private readonly opened: OpenedModel,
    private readonly slots: SlotManifest,
    private readonly session: Session,
    /** The comparison of the model with empty slots with its base; undefined where that was left out. */
    readonly guard: SlotGuardReport | undefined,
  ) {}

  /**
   * Opens the slotted model at `path`. Its base, which is the file without the slots, runs once on random
   * inputs, and the model with empty slots has to give the same but for rounding.
   * @throws OnnxLoraError `invalid-argument` for a model without required slots; `verification` where it
   * computes something else than its base; `provider`, `runtime`, and those of reading
   */
  static async open(path: string, given: AdapterSessionOptions = {}): Promise<AdapterSession> {
    const name = 'AdapterSession.open';
    const { guard, ...options } = resolveOptions(adapterSessionOptions, given, name);
    const opened = OpenedModel.open(path);
    try {
      const slots = requiredSlots(opened.patched);
      const provider = (await resolveProvider(options.provider)).used;
      const how = { ...options, provider };
      opened.files.openAll();
      // The base goes before the model comes: only one of them is in memory at a time.
      const base = guard ? await runBase(opened, options.threads) : undefined;
      const externalFolder = folderOf(opened.model);
      const form = await runnableForm(opened.model, provider, externalFolder);
      const session = await openSession(form ?? path, {
        ...how,
        externalFolder: form && externalFolder,
      });
      const report = base && (await compareWithBase(opened, slots, session, base));
      return new AdapterSession(opened, slots, session, report);
    } catch (error) {
      opened.close();
      throw error;
    }
  }

  /** The execution provider that runs the model. */
  get provider(): ProviderName {
    return this.session.provider;
  }

  /** The inputs of the model itself. */
  get inputs(): readonly ValueMeta[] {
    const own = new Set(this.slots.slots.flatMap(({ a, b }) => [a, b]));
    return this.session.inputs.filter(({ name }) => !own.has(name));
  }

  /** Name, type and shape of the outputs. */
  get outputs(): readonly ValueMeta[] {
    return this.session.outputs;
  }

  /** The adapters in the order in which they were loaded. */
  get adapters(): readonly LoadedAdapter[] {
    return [...this.loaded.values()].map(({ adapters: _, ...adapter }) => adapter);
  }

  /**
   * Reads the adapter at `path`: a file of onnx-lora, a folder of PEFT, or an `.onnx_adapter`.
   * @throws OnnxLoraError `invalid-argument` for a name that is taken; `adapter-mismatch` naming the
   * layers that have no slot; `unsupported` for adapters that change more than slots take (DoRA, heads,
   * trained tensors); those of reading
   */
  load(name: string, path: string): LoadedAdapter {
    if (this.loaded.has(name)) {
      throw new OnnxLoraError(
        'invalid-argument',
        `an adapter ${JSON.stringify(name)} is loaded already, from ${this.loaded.get(name)!.path}`,
        { hint: 'Unload it first, or give the new one another name.' },
      );
    }
    const adapters = loadAdapter(this.opened.patched, path);
    const loaded = { name, path, slots: adapters.size, bytes: bytesOf(adapters) };
    this.loaded.set(name, { ...loaded, adapters });
    return loaded;
  }

  /**
   * Forgets an adapter.
   * @throws OnnxLoraError `no-adapter` for a name that is not loaded
   */
  unload(name: string): void {
    this.find(name);
    this.loaded.delete(name);
    for (const key of this.activations.keys()) {
      if ((JSON.parse(key) as [string, number][]).some(([one]) => one === name)) {
        this.activations.delete(key);
      }
    }
  }

  /**
   * Runs the model with the adapters that are named, or without any.
   * @param feeds the inputs by name, as a Map or an object; tensors of ours or of onnxruntime-node
   * @returns every output that is a tensor of numbers
   * @throws OnnxLoraError `no-adapter`, `invalid-argument` for an adapter that is named twice, a
   * weight that is not a number or an input that is not a tensor, `io` for a data file that was cut off,
   * `runtime`
   */
  async run(feeds: GivenFeeds, options: AdapterRunOptions = {}) {
    const { adapters } = resolveOptions(runOptions, options, 'AdapterSession.run');
    const chosen: readonly Chosen[] = typeof adapters === 'string' ? [adapters] : adapters;
    const shares = chosen.map((one) => (typeof one === 'string' ? { name: one } : one));
    const active = this.activation(shares.map(({ name, weight = 1 }) => [name, weight]));
    this.opened.files.checkWhole();
    return await this.session.run(new Map<string, TensorValue>([...feedsOf(feeds), ...active]));
  }

  /** Frees model and adapters; may be called again. */
  async release(): Promise<void> {
    this.loaded.clear();
    this.activations.clear();
    this.opened.close();
    await this.session.release();
  }

  private activation(shares: readonly (readonly [string, number])[]): Feeds {
    const key = JSON.stringify(shares);
    const active = this.activations.get(key) ?? this.activate(shares);
    this.activations.delete(key);
    this.activations.set(key, active);
    if (this.activations.size > MAX_ACTIVATIONS) {
      this.activations.delete(this.activations.keys().next().value!);
    }
    return active;
  }

  private activate(shares: readonly (readonly [string, number])[]): Feeds {
    const names = new Set<string>();
    for (const [name, weight] of shares) {
      if (names.has(name)) throw invalid(`the adapter ${JSON.stringify(name)} is named twice`);
      if (!Number.isFinite(weight)) {
        const problem = `the weight of ${JSON.stringify(name)} is ${weight}`;
        throw invalid(`${problem}, expected a finite number`);
      }
      names.add(name);
    }
    const found = shares.map(([name, weight]) => ({ slots: this.find(name).adapters, weight }));
    return activate(this.slots.slots, found, this.provider);
  }

  private find(name: string): Loaded {
    const found = this.loaded.get(name);
    if (found) return found;
    const names = [...this.loaded.keys()];
    const loaded = names.length > 0 ? names.join(', ') : 'none';
    throw new OnnxLoraError(
      'no-adapter',
      `no adapter ${JSON.stringify(name)} is loaded, there is: ${loaded}`,
      { hint: 'Load it first: session.load(name, path).' },
    );
  }
}

function requiredSlots({ slots, model }: PatchedModel): SlotManifest {
  if (slots?.mode === 'required') return slots;
  const found = slots ? 'optional slots, which ONNX Runtime for Node ignores' : 'no slots';
  throw new OnnxLoraError('invalid-argument', `${model.source.label} has ${found}`, {
    hint: 'Make it from the base model with: `patch(model, { slots: true })`',
  });
}

function invalid(problem: string): OnnxLoraError {
  return new OnnxLoraError('invalid-argument', problem);
}

/** An adapter of several slots is in memory once. */
function bytesOf(adapters: SlotAdapters): number {
  const arrays = [...new Set(adapters.values())].flatMap(({ factors }) => Object.values(factors));
  return arrays.reduce((sum, { byteLength }) => sum + byteLength, 0);
}
