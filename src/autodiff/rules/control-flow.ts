/** If, Loop and Scan. Those whose course is fixed are not there any more: see graph/inline.ts. */
import { Refusal } from '../refusal.js';
import { ofOutputs } from '../rule.js';

export const controlFlow = ofOutputs('all', () => {
  throw new Refusal(
    'what it runs depends on data; only an If with a constant condition is seen through',
    'Export the model for the task alone, without branches and loops, or adapt only layers after it (`layers`, `targets`).',
  );
});
