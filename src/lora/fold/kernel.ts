import { KERNEL_BYTES } from './kernel-bytes.js';

// TypeScript knows WebAssembly from the library of browsers alone.
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: unknown };
};

/** What kernel.wat exports. Places are byte offsets in its memory. */
interface KernelExports {
  readonly memory: { readonly buffer: ArrayBuffer; grow(pages: number): number };
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

const PAGE = 64 * 1024;

let compiled: object | undefined;
const idle: Kernel[] = [];

/** The functions of kernel.wat, and a memory that they work in. */
export class Kernel {
  readonly functions: KernelExports;

  private constructor() {
    compiled ??= new WebAssembly.Module(Buffer.from(KERNEL_BYTES, 'base64'));
    this.functions = new WebAssembly.Instance(compiled).exports as KernelExports;
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
    if (missing > 0) memory.grow(Math.ceil(missing / PAGE));
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
