// What the tests get for `vitest` here: it collects tests, so that each can be run again and again in one process.
import { join } from 'node:path';
import { format } from 'node:util';

/** What is used of `@vitest/expect`, installed beside this file when a run needs it. */
type Parts = Readonly<Record<(typeof plugins)[number], unknown>> & {
  readonly chai: { readonly use: (plugin: unknown) => unknown; readonly expect: unknown };
};
const plugins = ['JestExtend', 'JestChaiExpect', 'JestAsymmetricMatchers', 'ChaiStyleAssertions'] as const;
const place = join(import.meta.dirname, 'node_modules', '@vitest', 'expect', 'dist', 'index.js');
const parts = (await import(place)) as Parts;
for (const name of plugins) parts.chai.use(parts[name]);

export type Collected = { readonly name: string; readonly run: () => unknown };

/** The tests of the files that were imported, in order. */
export const collected: Collected[] = [];

export const { expect } = parts.chai;

let around = '';

export function describe(name: string, body: () => void): void {
  const outer = around;
  around += `${name} > `;
  try {
    body();
  } finally {
    around = outer;
  }
}

export function test(name: string, ...rest: readonly unknown[]): void {
  const run = rest.find((one) => typeof one === 'function') as () => unknown;
  collected.push({ name: `${around}${name} ${collected.length}`, run });
}

describe.each = each(describe);
test.each = each(test);

function each(make: (name: string, body: () => unknown) => void) {
  return (table: readonly unknown[]) =>
    (name: string, ...rest: readonly unknown[]): void => {
      const body = rest.find((one) => typeof one === 'function') as (...row: readonly unknown[]) => unknown;
      for (const row of table) {
        const cells: readonly unknown[] = Array.isArray(row) ? row : [row];
        make(format(name, ...cells), () => body(...cells));
      }
    };
}
