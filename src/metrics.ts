/** A count that only grows, split by the values of one label from a closed set. */
export type Counter = { readonly add: (labelValue: string, by?: number) => void };

/** Counts durations into fixed buckets. */
export type Histogram = { readonly observe: (seconds: number) => void };

/** What a process tells about itself, in the OpenMetrics text format. Label values come from closed sets only. */
export type Metrics = {
  /** @param values every value the label may take; others are counted under `other`, so that input cannot grow memory */
  readonly counter: (name: string, help: string, label: string, values: readonly string[]) => Counter;
  /** @param read called when the metrics are asked for */
  readonly gauge: (name: string, help: string, read: () => number) => void;
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

function number(value: number): string {
  return Number.isFinite(value) ? String(value) : '0';
}
