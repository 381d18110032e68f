import { afterAll, beforeAll, expect } from 'vitest';

// Files of most rooms share workers, one after the other. None of them may leave anything for the next to find.
let before: object;
beforeAll(() => {
  before = world();
});
afterAll(() => {
  expect(world()).toEqual(before);
});

function world(): object {
  return {
    globals: Object.getOwnPropertyNames(globalThis).toSorted(),
    environment: { ...process.env },
    directory: process.cwd(),
    prototypes: [Object, Array, Map, Uint8Array, Promise].map((one) =>
      Object.getOwnPropertyNames(one.prototype),
    ),
    // By identity: a clock that was not put back is another function.
    sources: [[Date, 'now'] as const, [Math, 'random'] as const, [performance, 'now'] as const].map(
      ([of, name]): unknown => Reflect.get(of, name),
    ),
    timers: [setTimeout, setInterval, setImmediate],
    listeners: process.eventNames().map((name) => [name, process.listenerCount(name)]),
    fileMask: process.umask(),
  };
}
