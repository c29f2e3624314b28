import { expect, it } from 'vitest';
import { parseKey } from '../../../src/formats/peft/keys.js';

const M = 'base_model.model.bert.layer.0.query';

it.each([
  [`${M}.lora_A.weight`, 'lora_A', undefined],
  [`${M}.lora_A.default.weight`, 'lora_A', 'default'],
  [`${M}.lora_B.weight`, 'lora_B', undefined],
  [`${M}.lora_B.bias`, 'lora_B.bias', undefined],
  [`${M}.lora_B.de.bias`, 'lora_B.bias', 'de'],
  [`${M}.lora_magnitude_vector`, 'lora_magnitude_vector', undefined],
  [`${M}.lora_magnitude_vector.default.weight`, 'lora_magnitude_vector', 'default'],
  [`${M}.lora_embedding_A`, 'lora_embedding_A', undefined],
  [`${M}.lora_embedding_B.default`, 'lora_embedding_B', 'default'],
  [`${M}.gralora_A`, 'gralora_A', undefined],
  [`${M}.gralora_B.default`, 'gralora_B', 'default'],
  [`${M}.gralora_A_general.weight`, 'gralora_A_general', undefined],
  [`${M}.gralora_B_general.default.weight`, 'gralora_B_general', 'default'],
])('%s is the %s of the query', (key, part, adapter) => {
  expect(parseKey(key)).toEqual({ module: 'bert.layer.0.query', part, adapter });
});

it.each([
  ['base_model.model.classifier.weight', 'classifier', 'weight', undefined],
  ['base_model.model.classifier.modules_to_save.weight', 'classifier', 'weight', undefined],
  ['base_model.model.classifier.modules_to_save.de.bias', 'classifier', 'bias', 'de'],
  ['base_model.model.head.modules_to_save.de.dense.weight', 'head.dense', 'weight', 'de'],
  ['base_model.model.a.query.base_layer.bias', 'a.query', 'bias', undefined],
  ['base_model.model.vit.cls_token', 'vit', 'cls_token', undefined],
])('%s is a parameter of %s', (key, module, parameter, adapter) => {
  expect(parseKey(key)).toEqual({ module, part: { parameter }, adapter });
});

it.each([
  'weight',
  'base_model.model.weight',
  `${M}.lora_A.a.b.weight`,
  `${M}.lora_A.bias`,
  `${M}.gralora_A_general.bias`,
])('%s is no key', (key) => {
  expect(parseKey(key)).toBeUndefined();
});
