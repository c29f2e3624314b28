/**
 * com.microsoft CausalConvWithState: each channel convolved with what came before it, of this run or of the one
 * before (LFM2, Mamba, Gated DeltaNet).
 */
import type { Decomposition, NodeContext } from '../rule.js';
import { refuseIf } from './heads.js';

/** Options of kernels that only some providers have, with the value at which they change nothing. */
const IDLE: Readonly<Record<string, number>> = {
  channels_last: 0,
  input_channel_offset: 0,
  input_channels: 0,
  state_channels_last: -1,
  state_length: 0,
  state_update_capacity: 0,
  state_window: 0,
};

export const causalConv: Decomposition = (context) => {
  const { x, y, c, int, text } = context;
  const [input, weight, bias, past] = x as [string, string, string?, string?];
  refuseUses(context);
  const [channels, , taps] = c.dims(weight);
  refuseIf(typeof channels !== 'number' || typeof taps !== 'number', 'its kernel is not static');
  const dilation = int('dilation', 1);
  const before = (Number(taps) - 1) * dilation;
  const whole = past ? c.concat([past, input], 2) : padded(context, input, before);
  const conv = c.op('Conv', bias ? [whole, weight, bias] : [whole, weight], c.type(y[0]!), {
    group: { int: Number(channels) },
    dilations: { ints: [dilation] },
  });
  const activation = text('activation', 'none');
  const result = activation === 'none' ? conv : c.mul(conv, c.unary('Sigmoid', conv));
  const state = before === 0 ? c.stretch(whole, 2, 0, 0) : c.stretch(whole, 2, -before, END);
  return [result, state];
};

const END = 2 ** 31 - 1;

function refuseUses({ int, text }: NodeContext): void {
  refuseIf(int('ndim', 1) !== 1, 'only convolutions along one axis are supported');
  for (const [name, idle] of Object.entries(IDLE)) {
    refuseIf(int(name, idle) !== idle, `${name} is not supported`);
  }
  const activation = text('activation', 'none');
  const isKnown = ['none', 'silu', 'swish'].includes(activation);
  refuseIf(!isKnown, `the activation ${activation} is not supported`);
}

function padded({ c }: NodeContext, input: string, before: number): string {
  const { dtype } = c.type(input);
  const [batch, channels] = c.dims(input);
  const pads = c.integers([0, 0, before, 0, 0, 0]);
  return c.op('Pad', [input, pads], { dtype, shape: [batch!, channels!, null] });
}
