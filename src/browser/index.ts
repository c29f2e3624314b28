/**
 * onnx-lora without Node: what a page needs to train with ONNX Runtime Web, and to hand on what it
 * trained. Nothing in here reads files or imports other packages.
 */

export { OnnxLoraError } from '../errors.js';
export { type LossCurve, type LossCurveOptions, lossCurveSvg } from '../report/curve.js';
export { learningRate, type Schedule, type ScheduleName, schedules } from '../training/schedule.js';
export type { StepManifest } from '../training/step-format.js';
export { withTensors } from './onnx-file.js';
export { type Ort, type StepResult, StepTrainer } from './step-trainer.js';
