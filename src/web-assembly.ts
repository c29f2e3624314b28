/** The parts of WebAssembly that we use: TypeScript has its types in the library of browsers alone. */
interface WebAssemblyApi {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: unknown };
  readonly Memory: new (pages: { readonly initial: number }) => WebAssemblyMemory;
}

export interface WebAssemblyMemory {
  readonly buffer: ArrayBuffer;
  grow(pages: number): number;
}

export const { Module, Instance, Memory } = (
  globalThis as unknown as { WebAssembly: WebAssemblyApi }
).WebAssembly;

/** Bytes of a page of memory. */
export const PAGE_BYTES = 64 * 1024;
