/** A module whose functions note that they were called. */

type Callable = (...args: unknown[]) => unknown;

/** `module`, with the names of the functions and classes that were used put into `called`. */
export function recorded<M extends object>(module: M, called: Set<string>): M {
  const entries = Object.entries(module).map(([name, value]) => {
    const isCallable = typeof value === 'function';
    return [name, isCallable ? noting(value as Callable, () => called.add(name)) : value];
  });
  return Object.fromEntries(entries) as M;
}

/** Notes calls, `new`, and calls of static methods. */
function noting<F extends Callable>(callable: F, note: () => void): F {
  return new Proxy(callable, {
    apply(target, self, args) {
      note();
      return Reflect.apply(target, self, args);
    },
    construct(target, args) {
      note();
      return Reflect.construct(target, args) as object;
    },
    get(target, key) {
      const value: unknown = Reflect.get(target, key);
      if (typeof value !== 'function' || typeof key === 'symbol') return value;
      return (...args: unknown[]) => {
        note();
        return Reflect.apply(value, target, args);
      };
    },
  });
}
