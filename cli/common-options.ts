/** Options that every command has. */
import { option } from '../src/options/option.js';
import { path, toggle } from '../src/options/schemas.js';
import { specsOf } from './specs.js';

export const commonTable = {
  config: option(path, {
    group: 'General',
    value: 'FILE',
    summary: 'JSON file that sets any option here; the command line wins',
    example: '--config lora.json',
  }),
  configSchema: option(toggle, {
    group: 'General',
    summary: 'print a JSON schema for the file of --config, and do nothing else',
    example: '--config-schema > lora.schema.json',
  }),
  json: option(toggle, {
    group: 'General',
    summary: 'print the result as one JSON document',
    example: '--json | jq .output',
  }),
  quiet: option(toggle, {
    group: 'General',
    summary: 'no progress and no notes',
    example: '--quiet 2> errors.log',
  }),
  help: option(toggle, {
    group: 'General',
    short: 'h',
    summary: 'this text',
    example: 'onnx-lora patch --help',
  }),
};

export const commonOptions = specsOf(commonTable);

/** Of what is told to people alone. */
export const forPeople = { notWith: ['json'] };

/** Of commands that have more to show than most readers want. */
export const verboseOption = {
  verbose: option(toggle, {
    group: 'Output',
    summary: 'list every skipped node with its reason',
    example: '--verbose | less',
    ...forPeople,
  }),
};
