/** The JSON schema of a command's `--config`, for editors and for checks before a run. */
import type { Command } from './command.js';
import { notInConfig } from './config.js';
import type { OptionSpec, OptionSpecs } from './specs.js';

const jsonTypes = {
  boolean: 'boolean',
  text: 'string',
  path: 'string',
  whole: 'integer',
  number: 'number',
} as const;

/** @param options all that the command has, common ones too */
export function configSchema({ name, summary }: Command, options: OptionSpecs): object {
  const settable = Object.entries(options).filter(([key]) => !notInConfig.has(key));
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: `Options of onnx-lora ${name}`,
    description: summary,
    type: 'object',
    properties: {
      $schema: { type: 'string' },
      ...Object.fromEntries(settable.map(([key, spec]) => [key, propertyOf(spec)])),
    },
    additionalProperties: false,
  };
}

function propertyOf(spec: OptionSpec): object {
  const { type, choices, repeatable, values, summary, default: value } = spec;
  // The summary of a flag --no-… says what happens without.
  const description = spec.onByDefault ? `false: ${summary}` : summary;
  const texts = {
    description: value === undefined ? description : `${description}; default ${value}`,
  };
  const one = { type: jsonTypes[type], ...(choices ? { enum: choices } : {}) };
  if (!repeatable) return { ...texts, ...one };
  const several = { type: 'array', items: one };
  if (values !== undefined) return { ...texts, ...several, minItems: values, maxItems: values };
  return { ...texts, anyOf: [one, several] };
}
