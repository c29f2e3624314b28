/** Rules for the numbers of a dataset. */
import { isFloating } from '../onnx/dtype.js';
import { DEFAULT_BLANK } from './blank.js';
import type { Feed, FeedPlan } from './convert.js';
import { DEFAULT_IGNORE_INDEX } from './ignore-index.js';
import type { DataNeeds } from './needs.js';
import type { BadSample, Column, Fault, Rule } from './scan.js';

type Accepts = (taken: number, given: number) => boolean;

/** Integers min <= value < limit. */
interface Range {
  readonly min: number;
  readonly limit: number;
}

/** The rules for the numbers of every input that has some. */
export function valueRules(plan: FeedPlan, needs: DataNeeds): Rule[] {
  const ofLoss = new Set(needs.lossInputs.map(({ name }) => name));
  const rules = plan.feeds.flatMap((feed) => {
    const rule = ofLoss.has(feed.name) ? targetRule(feed, needs) : inputRule(feed, plan, needs);
    return rule ? [rule] : [];
  });
  return needs.labelKind === 'spelling' ? [...rules, ...spellingRules(plan, needs)] : rules;
}

function inputRule(feed: Feed, { ownLabels }: FeedPlan, needs: DataNeeds): Rule | undefined {
  if (feed.name === ownLabels?.mask) return maskRule(feed, needs);
  if (isFloating(feed.dtype)) return finite(feed);
  const bounds = needs.indexBounds?.get(feed.name);
  const classes = feed.name === ownLabels?.ids ? classesOf(needs) : undefined;
  if (bounds && bounds.limit <= (classes ?? Number.POSITIVE_INFINITY)) {
    return within(feed, bounds, 'rows of the table that the model looks them up in');
  }
  return classes === undefined ? undefined : within(feed, { min: 0, limit: classes }, 'classes');
}

function targetRule(feed: Feed, needs: DataNeeds): Rule | undefined {
  if (needs.labelKind === 'spelling') return undefined;
  if (needs.labelKind === 'sets') {
    const expected = isFloating(feed.dtype) ? 'probabilities from 0 to 1' : '0 or 1';
    return everyElement(feed, (taken) => taken >= 0 && taken <= 1, expected);
  }
  return isFloating(feed.dtype) ? finite(feed) : labelRule(feed, needs);
}

/** Also that integers survive: a float32 holds them up to 2^24. */
function finite(feed: Feed): Rule {
  const accepts: Accepts = (taken, given) =>
    Number.isFinite(taken) && (taken === given || !Number.isInteger(given));
  return everyElement(feed, accepts, `a finite number that ${feed.dtype} holds`);
}

function within(feed: Feed, { min, limit }: Range, what: string): Rule {
  const accepts: Accepts = (taken) => taken >= min && taken < limit;
  return everyElement(feed, accepts, `${min} to ${limit - 1} (${what})`);
}

/** Classes, or "does not count"; and at least one of the labels counts. */
function labelRule(feed: Feed, needs: DataNeeds): Rule {
  const { ignoreIndex = DEFAULT_IGNORE_INDEX } = needs;
  const classes = classesOf(needs);
  // The losses look labels up as int32.
  const limit = classes ?? 2 ** 31;
  const range =
    classes === undefined ? `0 to ${limit - 1}` : `0 to ${limit - 1} (${classText(limit, needs)})`;
  const accepts: Accepts = (taken) => taken === ignoreIndex || (taken >= 0 && taken < limit);
  const rule = everyElement(feed, accepts, `${range}, or ${ignoreIndex} to leave it out`);
  const lack = `key ${feed.key} has no label that counts, all are ${ignoreIndex}`;
  return { ...rule, ...counting(needs, (taken) => taken !== ignoreIndex, rule, lack) };
}

/** Of tokens: an encoder's states may stand where logits of the vocabulary should. */
function classText(classes: number, { labelKind, indexBounds }: DataNeeds): string {
  const { limit = 0 } = indexBounds?.get('input_ids') ?? {};
  const isHeadless = labelKind === 'tokens' && limit > classes;
  const aside = `; the model looks up ${limit} tokens, so its output is not logits of them: it may lack the head`;
  return `${classes} classes${isHeadless ? aside : ''}`;
}

/** The ids as labels: those that are text by the mask. */
function maskRule(feed: Feed, needs: DataNeeds): Rule {
  const lack = `key ${feed.key} leaves no token to predict: it is 0 after the first one of every sample`;
  const rule = { feeds: [feed], find: () => undefined };
  return { ...rule, ...counting(needs, (taken) => taken !== 0, rule, lack) };
}

/** Counts samples without an element that counts: they teach nothing, and all of them are an error. */
function counting(
  { labelKind }: DataNeeds,
  counts: (taken: number) => boolean,
  { feeds: [feed], find }: Rule,
  lack: string,
): Pick<Rule, 'find' | 'lack' | 'remark'> {
  // The first token of a text has nothing to be predicted from.
  const first = labelKind === 'tokens' ? 1 : 0;
  let [idle, all] = [0, 0];
  return {
    find(columns) {
      const { taken, width } = columns[0]!;
      for (let start = 0; start < taken.length; start += width) {
        if (!taken.subarray(start + first, start + width).some(counts)) idle++;
        all++;
      }
      return find(columns);
    },
    lack: () => (idle < all ? undefined : lack),
    remark: () =>
      idle > 0
        ? `${idle} of ${all} samples teach nothing: key ${feed!.key} counts nowhere in them`
        : undefined,
  };
}

/** Lengths within the arrays, and classes but the blank as far as they reach. */
function spellingRules({ feeds }: FeedPlan, needs: DataNeeds): Rule[] {
  const find = (name: string) => feeds.find((feed) => feed.name === name);
  const frames = find('input_lengths');
  const [labels, lengths] = [find('labels')!, find('label_lengths')!];
  const rules = [spelling(labels, lengths, needs), roomRule(labels, lengths, frames, needs)];
  return frames ? [frameRule(frames, needs), ...rules] : rules;
}

/**
 * Frames enough to spell the labels: one for each, and a blank between two that are the same. Without them
 * no way spells the row. Among rows of a file it is a bad one. In arrays, which other programs train on too,
 * its loss counts as 0 as it does there (PyTorch's zero_infinity): that is told, and an error where no sample is
 * left. `skipBadRows` leaves it out of both.
 */
function roomRule(labels: Feed, lengths: Feed, frames: Feed | undefined, needs: DataNeeds): Rule {
  const fixed = needs.output.shape?.[1];
  const most = needs.frames ?? (typeof fixed === 'number' ? fixed : Number.POSITIVE_INFINITY);
  const bad: BadSample[] = [];
  let all = 0;
  return {
    feeds: [labels, lengths, ...(frames ? [frames] : [])],
    find([text, length, given]) {
      const { taken, width } = text!;
      for (const [row, count] of length!.taken.entries()) {
        const room = Math.min(most, given?.taken[row] ?? most);
        const own = taken.subarray(row * width, row * width + count);
        const repeats = own.filter((label, i) => i > 0 && label === own[i - 1]).length;
        if (count + repeats > room) {
          const problem = `${count} labels, ${repeats} of them repeated, in ${room} frames`;
          bad.push({ sample: all, problem });
        }
        all++;
      }
      return undefined;
    },
    bad: () => bad,
    lack: () =>
      bad.length < all
        ? undefined
        : `no sample has frames enough to spell its labels: ${firstOf(bad)}`,
    remark: () =>
      bad.length > 0
        ? `${bad.length} of ${all} samples have too few frames to spell their labels, and a loss of 0 (\`skipBadRows\` leaves them out); ${firstOf(bad)}`
        : undefined,
  };
}

function firstOf([first]: readonly BadSample[]): string {
  return `the first is sample ${first?.sample}, with ${first?.problem}`;
}

function frameRule(lengths: Feed, { output }: DataNeeds): Rule {
  const frames = output.shape?.[1];
  const most = typeof frames === 'number' ? frames : Number.POSITIVE_INFINITY;
  const range = typeof frames === 'number' ? `1 to ${frames}` : '1 or more';
  return everyElement(lengths, (taken) => taken >= 1 && taken <= most, `${range} (frames)`);
}

function spelling(labels: Feed, lengths: Feed, needs: DataNeeds): Rule {
  const { blank = DEFAULT_BLANK } = needs;
  const classes = classesOf(needs) ?? Number.POSITIVE_INFINITY;
  const last = Number.isFinite(classes) ? `0 to ${classes - 1}` : '0 or more';
  return {
    feeds: [labels, lengths],
    find([text, length]): Fault | undefined {
      const { taken, width } = text!;
      for (const [row, count] of length!.taken.entries()) {
        if (count < 0 || count > width) {
          const expected = `0 to ${width}, the length of key ${labels.key}`;
          return { key: lengths.key, row, element: 0, found: count, expected };
        }
        for (let element = 0; element < count; element++) {
          const found = taken[row * width + element]!;
          if (found >= 0 && found < classes && found !== blank) continue;
          const expected = `${last} without ${blank}, which is the blank`;
          return { key: labels.key, row, element, found, expected };
        }
      }
      return undefined;
    },
  };
}

function everyElement(feed: Feed, accepts: Accepts, expected: string): Rule {
  return {
    feeds: [feed],
    find([column]): Fault | undefined {
      const { given, taken, width } = column as Column;
      for (let i = 0; i < taken.length; i++) {
        if (accepts(taken[i]!, given[i]!)) continue;
        const row = Math.floor(i / width);
        return { key: feed.key, row, element: i % width, found: given[i]!, expected };
      }
      return undefined;
    },
  };
}

function classesOf({ output }: DataNeeds): number | undefined {
  const classes = output.shape?.at(-1);
  return typeof classes === 'number' ? classes : undefined;
}
