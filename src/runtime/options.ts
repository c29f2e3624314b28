/** Options of what runs a model. */
import { option } from '../options/option.js';
import { choice, whole } from '../options/schemas.js';
import { providerNames } from './provider-names.js';

const provider = choice(['auto', ...providerNames]);
const texts = { group: 'General', value: 'NAME', example: '--provider cuda' } as const;

export const providerOption = {
  /** The execution provider; `auto`, the default, measures which is fastest here. */
  provider: option(provider, {
    ...texts,
    default: 'auto',
    summary: 'execution provider; auto measures which is fastest here',
  }),
};

/** Runs models whose outputs are compared: the CPU computes them best. */
export const CHECK_PROVIDER = 'cpu';

/** Of commands that compare outputs. */
export const checkProviderOption = {
  /** The execution provider; default `cpu`. */
  provider: option(provider, {
    ...texts,
    default: CHECK_PROVIDER,
    summary: 'execution provider that the models run on; see onnx-lora providers',
  }),
};

// Far beyond the cores of any machine; each takes memory of its own.
const MAX_THREADS = 1024;

export const threadsOption = {
  /** CPU threads; default one a core. */
  threads: option(whole(1, MAX_THREADS), {
    group: 'General',
    value: 'N',
    defaultText: 'all cores',
    summary: 'CPU threads',
    example: '--threads 2',
  }),
};
