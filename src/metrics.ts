/** A count that only grows, split by the values of one label from a closed set. */
export type Counter = { readonly add: (labelValue: string, by?: number) => void };

/** Counts durations into fixed buckets. */
export type Histogram = { readonly observe: (seconds: number) => void };

/** The most samples of one family: who scrapes pays for each. */
export const maxSeries = 2_000;

/** What a process tells about itself, in the OpenMetrics text format. */
export type Metrics = {
  /** @param values every value the label may take; others are counted under `other`, so that input cannot grow memory */
  readonly counter: (name: string, help: string, label: string, values: readonly string[]) => Counter;
  /** @param read called when the metrics are asked for */
  readonly gauge: (name: string, help: string, read: () => number) => void;
  /**
   * A family with one sample for each value of a label that is not known beforehand.
   * @param read called when the metrics are asked for; the first {@link maxSeries} are told, so the weightiest go first
   */
  readonly labelled: (
    type: 'gauge' | 'counter',
    name: string,
    help: string,
    label: string,
    read: () => Iterable<readonly [labelValue: string, value: number]>,
  ) => void;
  readonly histogram: (name: string, help: string, bucketsSeconds: readonly number[]) => Histogram;
  readonly text: () => string;
};

export function createMetrics(): Metrics {
  const families: (() => string[])[] = [];
  return {
    counter: (name, help, label, values) => {
      const counts = new Map([...values, 'other'].map((value) => [value, 0]));
      families.push(() => [
        ...describe(name, help, 'counter'),
        ...[...counts].map(([value, count]) => `${name}_total{${label}="${value}"} ${count}`),
      ]);
      return {
        add: (value, by = 1) => {
          const key = counts.has(value) ? value : 'other';
          counts.set(key, (counts.get(key) ?? 0) + by);
        },
      };
    },
    gauge: (name, help, read) => {
      families.push(() => [...describe(name, help, 'gauge'), `${name} ${number(read())}`]);
    },
    labelled: (type, name, help, label, read) => {
      const sample = type === 'counter' ? `${name}_total` : name;
      families.push(() => [
        ...describe(name, help, type),
        ...firstOf(read(), maxSeries).map(
          ([value, count]) => `${sample}{${label}="${escapeLabel(value)}"} ${number(count)}`,
        ),
      ]);
    },
    histogram: (name, help, bucketsSeconds) => {
      const counts = bucketsSeconds.map(() => 0);
      let count = 0;
      let sum = 0;
      families.push(() => [
        ...describe(name, help, 'histogram'),
        ...bucketsSeconds.map((le, index) => `${name}_bucket{le="${le}"} ${counts[index]}`),
        `${name}_bucket{le="+Inf"} ${count}`,
        `${name}_sum ${number(sum)}`,
        `${name}_count ${count}`,
      ]);
      return {
        observe: (seconds) => {
          count += 1;
          sum += seconds;
          for (const [index, le] of bucketsSeconds.entries()) {
            if (seconds <= le) counts[index] = (counts[index] ?? 0) + 1;
          }
        },
      };
    },
    text: () => `${families.flatMap((family) => family()).join('\n')}\n# EOF\n`,
  };
}

function describe(name: string, help: string, type: string): string[] {
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`];
}

function firstOf(
  samples: Iterable<readonly [string, number]>,
  limit: number,
): readonly (readonly [string, number])[] {
  // INVARIANT: a label value comes once, or the whole text is void.
  const found = new Map<string, number>();
  for (const [value, count] of samples) {
    if (found.size >= limit) break;
    if (!found.has(value)) found.set(value, count);
  }
  return [...found];
}

/** OpenMetrics 1.0, section "Escaping". */
function escapeLabel(value: string): string {
  return value.toWellFormed().replace(/[\\"\n]/g, (c) => (c === '\n' ? '\\n' : `\\${c}`));
}

/** What there is none of, such as the next of nothing, is infinitely far away. */
function number(value: number): string {
  if (Number.isNaN(value)) return 'NaN';
  if (Number.isFinite(value)) return String(value);
  return value > 0 ? '+Inf' : '-Inf';
}
