/**
 * Event files, which TensorBoard reads: records framed as in TFRecord files (length, its checksum,
 * bytes, their checksum), each one an `Event` message of TensorFlow's event.proto.
 */
import protobuf from 'protobufjs/minimal.js';
import { crc32c } from './crc32.js';

/** Numbers of one moment, by their tags. */
export interface ScalarEvent {
  /** Seconds since 1970. */
  readonly time: number;
  readonly step: number;
  readonly scalars: Readonly<Record<string, number>>;
}

// Numbers of the fields in event.proto and summary.proto.
const EVENT = { wallTime: 1, step: 2, fileVersion: 3, summary: 5, sessionLog: 7 };
const SUMMARY = { value: 1 };
const VALUE = { tag: 1, simpleValue: 2 };
const SESSION_LOG = { status: 1 };

const FILE_VERSION = 'brain.Event:2';
const SESSION_STARTED = 1;

/** The first record of every file. */
export function fileHeader(time: number): Uint8Array {
  return record(time, 0, (event) =>
    event.uint32(key(EVENT.fileVersion, BYTES)).string(FILE_VERSION),
  );
}

/**
 * The record that a run goes on at a step: readers drop what earlier files of the folder say of that
 * step and later ones.
 */
export function restartRecord(time: number, step: number): Uint8Array {
  return record(time, step, (event) =>
    event
      .uint32(key(EVENT.sessionLog, BYTES))
      .fork()
      .uint32(key(SESSION_LOG.status, VARINT))
      .int32(SESSION_STARTED)
      .ldelim(),
  );
}

/** The record of some numbers. */
export function scalarRecord({ time, step, scalars }: ScalarEvent): Uint8Array {
  return record(time, step, (event) => {
    event.uint32(key(EVENT.summary, BYTES)).fork();
    for (const [tag, value] of Object.entries(scalars)) {
      event.uint32(key(SUMMARY.value, BYTES)).fork();
      event.uint32(key(VALUE.tag, BYTES)).string(tag);
      event.uint32(key(VALUE.simpleValue, FIXED32)).float(value).ldelim();
    }
    event.ldelim();
  });
}

const [VARINT, FIXED64, BYTES, FIXED32] = [0, 1, 2, 5];

function key(field: number, wireType: number): number {
  return (field << 3) | wireType;
}

function record(time: number, step: number, write: (event: protobuf.Writer) => void): Uint8Array {
  const event = protobuf.Writer.create();
  event.uint32(key(EVENT.wallTime, FIXED64)).double(time);
  if (step !== 0) event.uint32(key(EVENT.step, VARINT)).int64(step);
  write(event);
  return framed(event.finish());
}

function framed(data: Uint8Array): Uint8Array {
  const length = new Uint8Array(BigUint64Array.of(BigInt(data.length)).buffer);
  return Buffer.concat([length, maskedChecksum(length), data, maskedChecksum(data)]);
}

/** A checksum of bytes that hold checksums is weak, so those are stored rotated and shifted. */
function maskedChecksum(bytes: Uint8Array): Uint8Array {
  const crc = crc32c(bytes);
  const rotated = ((crc >>> 15) | (crc << 17)) >>> 0;
  return new Uint8Array(Uint32Array.of(rotated + 0xa282ead8).buffer);
}
