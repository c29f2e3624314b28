/** ONNX Runtime's own record of what it ran, where, and for how long. */
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { InferenceSession } from 'onnxruntime-node';
import { temporaryFolder } from '../onnx/temporary.js';

/** One entry of the record; times in microseconds since the session was made. */
export interface ProfileEvent {
  /** `Node`: a kernel as the CPU sees it. `Api`: a kernel on the GPU. `Session`: loads and runs. */
  readonly cat: 'Session' | 'Node' | 'Api';
  readonly name: string;
  readonly ts: number;
  readonly dur: number;
  readonly args: {
    readonly op_name?: string;
    readonly node_index?: string;
    readonly provider?: string;
  };
}

/**
 * The record of one session, in a temporary folder. It is begun with the session and ended when
 * enough has run: from then on runs are as fast as without, while a run that is recorded takes
 * several microseconds more for each node.
 */
export class ProfileRecord {
  private readonly folder = temporaryFolder('onnx-lora-profile-');

  /** Options to make the session with. */
  get options(): InferenceSession.SessionOptions {
    return { enableProfiling: true, profileFilePrefix: join(this.folder, 'profile') };
  }

  /** Ends the record and gives what is in it; nothing of it stays on the disk. */
  end(session: InferenceSession): ProfileEvent[] {
    session.endProfiling();
    // The time of day is part of the name.
    const [name] = readdirSync(this.folder);
    const events = parseEvents(readFileSync(join(this.folder, name!), 'utf8'));
    this.delete();
    return events;
  }

  /** Deletes what there is, for a session that could not be made. */
  delete(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/**
 * The events of a record. ONNX Runtime writes names of nodes into its JSON as they are, with their quotes,
 * backslashes and line ends, so that it is JSON only where the names are plain.
 */
export function parseEvents(text: string): ProfileEvent[] {
  try {
    return JSON.parse(text) as ProfileEvent[];
  } catch {
    const records = text.split(/^(?=\{"cat" : ")/m).slice(1);
    return records.flatMap((record) => parseEvent(record) ?? []);
  }
}

const EVENT =
  /^\{"cat" : "(?<cat>\w+)",[^{]*?"dur" :(?<dur>-?\d+),"ts" :(?<ts>-?\d+),"ph" : "\w+","name" :"(?<name>.*)","args" : (?<args>\{.*\})\},?\s*\]?\s*$/s;

/** The event between what ONNX Runtime writes around a name; undefined for what is not an event. */
function parseEvent(record: string): ProfileEvent | undefined {
  const parts = EVENT.exec(record)?.groups;
  if (!parts) return undefined;
  const { name, args } = parts as { name: string; args: string };
  const cat = parts.cat as ProfileEvent['cat'];
  return { cat, name, ts: Number(parts.ts), dur: Number(parts.dur), args: parseArgs(args) };
}

function parseArgs(text: string): ProfileEvent['args'] {
  try {
    return JSON.parse(text) as ProfileEvent['args'];
  } catch {
    return {};
  }
}
