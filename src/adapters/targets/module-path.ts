import { OnnxLoraError } from '../../errors.js';
import { type Node, nodeLabel } from '../../onnx/model.js';
import { GENERATED } from './weight-name.js';

/**
 * The path of the module that a node came from, as PyTorch names it
 * (`encoder.layer.0.attention.self.query`). Sources in this order:
 * the node's name where it is a path (`/encoder/layer.0/attention/self/query/MatMul`, the
 * TorchScript exporter), `pkg.torch.onnx.name_scopes` (the current PyTorch exporter), the name of
 * the weight (`encoder.layer.0.attention.self.query.weight`), else the node's label.
 */
export function modulePath(node: Node, weightName: string, label = nodeLabel(node)): string {
  return fromNodeName(node.name) ?? fromNameScopes(node) ?? fromWeightName(weightName) ?? label;
}

function fromNodeName(name: string): string | undefined {
  if (!name.startsWith('/')) return undefined;
  const modules = name.split('/').slice(1, -1);
  return modules.length > 0 ? modules.join('.') : undefined;
}

const NAME_SCOPES = 'pkg.torch.onnx.name_scopes';

/** The value is a Python list: the module path comes before the operator's own name. */
function fromNameScopes(node: Node): string | undefined {
  const entry = node.metadata.find(({ key }) => key === NAME_SCOPES);
  const scopes = entry?.value().matchAll(/'([^']*)'|"([^"]*)"/g);
  return [...(scopes ?? [])].map((match) => match[1] ?? match[2]!).at(-2) || undefined;
}

function fromWeightName(name: string): string | undefined {
  const path = name.replace(/\.(weight|kernel|w)(_\w+)?$/i, '');
  return path !== name && !GENERATED.test(name) ? path : undefined;
}

/** The module path, with a number where layers before it have the same. */
export function uniqueName(module: string, names: Map<string, number>): string {
  const count = names.get(module) ?? 0;
  names.set(module, count + 1);
  return count === 0 ? module : `${module}#${count}`;
}

/**
 * Paths whose beginning the user gives another: the adapter's wrapper for the model's.
 * @param rename `OLD=NEW`, either of them may be empty
 * @throws OnnxLoraError `invalid-argument` for a text that is not such a pair
 */
export function renamePaths(rename: string): (path: string) => string {
  const [old, now, ...rest] = rename
    .split('=')
    .map((prefix) => (prefix === '' ? '' : `${prefix}.`));
  if (old === undefined || now === undefined || rest.length > 0) {
    throw new OnnxLoraError(
      'invalid-argument',
      `the prefix is ${JSON.stringify(rename)}, expected OLD=NEW`,
      {
        hint: "For example `peftPrefix: 'bert=auto_model'`, or `peftPrefix: '=model'` to add one.",
      },
    );
  }
  return (path) => (path.startsWith(old) ? now + path.slice(old.length) : path);
}
