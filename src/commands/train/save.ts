/** Saves what a run leaves: the model, its adapters, the curve and the report. */
import { formatOf } from '../../adapters/files/format-of.js';
import { kindOf } from '../../formats/path-kind.js';
import { writeFiles } from '../../onnx/write.js';
import { lossCurveSvg } from '../../report/curve.js';
import type { Settings } from '../../training/checkpoint.js';
import type { RunLog } from '../../training/log.js';
import { trainedModel } from '../../training/trained-model.js';
import { type ExtractOptions, extract, extractedFiles } from '../extract.js';
import { writeModel } from '../output.js';
import { runInputs } from './outputs.js';
import { curveOf, type ReportedRun, writeReport } from './report.js';
import type { FinishedRun, SavedRun } from './result.js';

/** A run at its end, with all that its files show. */
export interface EndedRun
  extends Pick<FinishedRun, 'context' | 'data' | 'provider' | 'step' | 'loop'> {
  readonly settings: Settings;
  readonly log: RunLog;
}

/**
 * Saves the files of a run that is over.
 * @param theta the trained numbers
 * @throws OnnxLoraError those of writing
 */
export async function saveRun(run: EndedRun, theta: Float32Array): Promise<SavedRun> {
  const { output, options } = run.context;
  const { saveAdapter, plot, report, force } = options;
  const { set } = run.step.forward.set;
  const adapter = saveAdapter === undefined ? undefined : { output: saveAdapter, name: set, force };
  const isPlaced = saveAdapter !== undefined && hasPlace(saveAdapter);
  await writeTrained(run, theta, isPlaced ? adapter : undefined);
  if (plot !== undefined) await writePlot(plot, run);
  // A folder that was not there when the model was written is made now: nothing older is in it.
  if (adapter && !isPlaced) await extract(output, adapter);
  if (report !== undefined) await writeReport(report, reported(run), force);
  return adapter ? { output, adapter: adapter.output } : { output };
}

/** Writes the model, and with it, as one, what may take the place of older adapters. */
async function writeTrained(
  { context, data, step }: EndedRun,
  theta: Float32Array,
  adapter: ExtractOptions | undefined,
): Promise<void> {
  const { opened, options, output, patched } = context;
  const edit = trainedModel(patched, step.forward, theta, data.classes);
  const alsoRead = runInputs(patched.model, options);
  const beside = adapter ? await extractedFiles(await opened.edited(edit), adapter) : [];
  await writeModel(patched.model, edit, output, { force: options.force, alsoRead }, { beside });
}

/** Whether adapters go to a file, or to a folder that is there. */
function hasPlace(saveAdapter: string): boolean {
  return formatOf(saveAdapter) !== 'peft' || kindOf(saveAdapter) === 'folder';
}

async function writePlot(path: string, { context, log }: EndedRun): Promise<void> {
  const svg = lossCurveSvg(curveOf(log.records));
  const { force } = context.options;
  await writeFiles([{ path, pieces: [Buffer.from(svg)] }], [], { force });
}

function reported({ context, data, provider, settings, log, loop }: EndedRun): ReportedRun {
  const { options, output, patched } = context;
  return {
    output,
    shownAs: options.finalOutput,
    files: {
      model: patched.model.source.label,
      data: options.data,
      evalData: options.evalData,
    },
    provider: provider.used,
    settings,
    best: loop.best,
    confusion: loop.confusion,
    classNames: data.classes,
    records: log.records,
    ...context.cost(),
  };
}
