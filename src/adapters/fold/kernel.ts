import { OnnxLoraError } from '../../errors.js';
import { Instance, Module, PAGE_BYTES, type WebAssemblyMemory } from '../../web-assembly.js';
import { KERNEL_BYTES } from './kernel-bytes.js';

/** The exports of kernel.wat. Places are byte offsets in its memory. */
interface KernelExports {
  readonly memory: WebAssemblyMemory;
  widen(from: number, to: number, count: number): number;
  narrow(from: number, to: number, count: number): number;
  add(
    sum: number,
    stride: number,
    rows: number,
    width: number,
    left: number,
    rank: number,
    right: number,
  ): void;
}

let compiled: object | undefined;
const idle: Kernel[] = [];

/** The functions of kernel.wat, and a memory that they work in. */
export class Kernel {
  readonly functions: KernelExports;

  private constructor() {
    compiled ??= new Module(Buffer.from(KERNEL_BYTES, 'base64'));
    const module = compiled;
    this.functions = withMemory(() => new Instance(module)).exports as KernelExports;
  }

  /** One that nobody works with. They are used again: each one takes gigabytes of addresses. */
  static take(): Kernel {
    return idle.pop() ?? new Kernel();
  }

  giveBack(): void {
    idle.push(this);
  }

  /** Makes the memory at least so large; views of it are void afterwards. */
  reserve(bytes: number): void {
    const { memory } = this.functions;
    const missing = bytes - memory.buffer.byteLength;
    if (missing > 0) withMemory(() => memory.grow(Math.ceil(missing / PAGE_BYTES)));
  }

  bytes(at: number, count: number): Uint8Array {
    return new Uint8Array(this.functions.memory.buffer, at, count);
  }

  floats(at: number, count: number): Float32Array {
    return new Float32Array(this.functions.memory.buffer, at, count);
  }

  doubles(at: number, count: number): Float64Array {
    return new Float64Array(this.functions.memory.buffer, at, count);
  }
}

/** @throws OnnxLoraError `runtime` where the system or a limit of it gives no memory */
function withMemory<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new OnnxLoraError('runtime', `no memory to fold adapters in: ${error.message}`, {
      hint: 'Addresses for some 10 GB are reserved, of which little is used: raise the limit on address space (ulimit -v).',
      cause: error,
    });
  }
}
