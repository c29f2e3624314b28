import { expect, it } from 'vitest';
import { evaluationPage } from '../../src/report/evaluation-page.js';
import { type RunReport, runReportPage } from '../../src/report/run-report.js';
import { ConfusionMatrix } from '../../src/training/metrics/confusion.js';

const EVIL = '<script>alert(1)</script>';

const inspected = {
  model: {
    ...{ path: 'out/a.onnx', irVersion: 8, opsets: [], producer: '', bytes: 1 },
    ...{ externalData: [], parameters: 1000 },
  },
  ...{ inputs: [], outputs: [], targets: [], sets: [], slots: null },
  summary: { targets: 1, eligible: 1, adapted: 1, adapterParameters: 1234, percent: 12.5 },
};

const report: RunReport = {
  ...{ inspected, blocks: new Map() },
  curve: { steps: [1, 2, 3].map((step) => ({ step, loss: 1 / step, lr: 0.1 })) },
  evaluations: [
    { step: 2, measures: { loss: 0.5, accuracy: 0.7 } },
    { step: 3, measures: { loss: 0.25, accuracy: 0.925 } },
  ],
  best: { step: 3, loss: 0.25 },
  settings: { data: EVIL, 'weight decay': '0.01' },
  ...{ provider: 'cpu', seconds: 75, peakMemoryBytes: 2e8 },
};

/** Ten labels of class 0, of which three were taken for class 1. */
function confusion(): ConfusionMatrix {
  const matrix = new ConfusionMatrix();
  for (let i = 0; i < 10; i++) matrix.add(0, i < 3 ? 1 : 0);
  return matrix;
}

it('tells the course, the measures and the settings of a run', () => {
  const page = runReportPage(report);
  expect(page).toContain('<h1><bdi>a.onnx</bdi></h1>');
  expect(page).toContain('0.3333<small>1 at the first step');
  expect(page).toContain('accuracy<b>0.925</b>');
  expect(page).toContain('aria-label="accuracy by step"');
  expect(page).toContain('<dt>weight decay</dt><dd><bdi>0.01</bdi></dd>');
  expect(page).toMatch(/<img class="curve"[^>]*src="data:image\/svg\+xml;base64,[A-Za-z0-9+/=]+"/);
});

it('escapes what it is told', () => {
  expect(runReportPage(report)).not.toContain(EVIL);
});

it('shows what the model wrote, a column a prompt', () => {
  const samples = (text: string) => [{ prompt: 'Once', text }];
  const writing = [0, 5].map((step) => ({ step, samples: samples(step === 0 ? EVIL : ' upon') }));
  const page = runReportPage({ ...report, writing });
  expect(page).toContain('<th scope="col">Once</th>');
  expect(page).toContain('<tr><th scope="row">5</th><td> upon</td></tr>');
  expect(page).not.toContain(EVIL);
  const long = Array.from({ length: 1000 }, (_, step) => ({ step, samples: samples(`${step}`) }));
  const rows = runReportPage({ ...report, writing: long }).match(/<tr><th scope="row">\d+/g)!;
  expect([rows.length, rows.at(0), rows.at(-1)]).toEqual([
    25,
    '<tr><th scope="row">0',
    '<tr><th scope="row">999',
  ]);
});

it('leaves out what a run did not have', () => {
  const { best: _, ...rest } = report;
  const page = runReportPage({ ...rest, evaluations: [] });
  expect(page).not.toContain('<h2>Evaluation</h2>');
  expect(page).not.toContain('taken for');
  expect(page).not.toContain('NaN');
});

const evaluation = {
  ...{ model: 'm.onnx', samples: 10, seconds: 1, measures: { accuracy: 0.7 }, facts: {} },
  expectations: [{ measure: 'accuracy', condition: '>= 0.9', passed: false }],
};

it('shows which classes are taken for which, by their names', () => {
  const page = evaluationPage({
    ...evaluation,
    confusion: confusion(),
    classNames: ['cat', EVIL],
  });
  expect(page).toContain('title="cat taken for &lt;script&gt;alert(1)&lt;/script&gt;: 3, 30.0%"');
  expect(page).toContain('--v:0.700');
  expect(page).toContain('&gt;= 0.9 missed');
});

it('lists the worst mistakes where a matrix has too many columns', () => {
  const many = new ConfusionMatrix();
  for (let i = 0; i < 50; i++) many.add(i, (i + 1) % 50);
  many.add(7, 9);
  many.add(7, 9);
  const page = evaluationPage({ ...evaluation, confusion: many });
  expect(page).toContain('50 classes: too many for a matrix');
  const mistakes = page.split('<tbody>')[1]!;
  expect(mistakes.slice(0, 120)).toContain('<td><bdi>7</bdi></td><td><bdi>9</bdi></td>');
});
