/** One figure for people: a name, its value and its unit (`/s`, `us`, `MiB`, `x`). */
export type ReportRow = { readonly name: string; readonly value: number | string; readonly unit: string };

/**
 * Prints the figures of a benchmark, aligned, then the metrics as one last line of JSON:
 * `{"bench":"issuance","metrics":{...}}`. Scripts read the last line only.
 */
export function printReport(
  bench: string,
  rows: readonly ReportRow[],
  metrics: Readonly<Record<string, number>>,
): void {
  const nameWidth = Math.max(0, ...rows.map((row) => row.name.length));
  const values = rows.map((row) => formatValue(row.value));
  const valueWidth = Math.max(0, ...values.map((value) => value.length));
  console.log(bench);
  rows.forEach((row, i) => {
    console.log(
      `  ${row.name.padEnd(nameWidth)}  ${(values[i] ?? '').padStart(valueWidth)} ${row.unit}`.trimEnd(),
    );
  });
  console.log(JSON.stringify({ bench, metrics }));
}

function formatValue(value: number | string): string {
  if (typeof value === 'string') return value;
  if (!Number.isFinite(value)) return String(value);
  if (Number.isInteger(value)) return value.toLocaleString('en-US');
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 1 ? 2 : 3;
  return value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** A figure with what it has to be. */
export type Figure = {
  readonly name: string;
  readonly value: number;
  /** `ms`, `MiB`, `KiB` or nothing. */
  readonly unit: string;
  /** The most it may be; null for one that is only told. */
  readonly atMost: number | null;
};

/** Prints figures with their targets and verdicts, aligned, then all of them as one last line of JSON. */
export function printFigures(bench: string, figures: readonly Figure[]): void {
  const cells = figures.map(({ name, value, unit, atMost }) => [
    name,
    `${formatValue(value)} ${unit}`.trimEnd(),
    atMost === null ? '' : `<= ${formatValue(atMost)}`,
    atMost === null ? '' : value <= atMost ? 'met' : 'MISSED',
  ]);
  const all = [['figure', 'value', 'target', 'verdict'], ...cells];
  const widths = [0, 1, 2].map((column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  console.log(bench);
  for (const [name = '', value = '', target = '', verdict = ''] of all) {
    const [first = 0, second = 0, third = 0] = widths;
    console.log(
      `  ${name.padEnd(first)}  ${value.padStart(second)}  ${target.padEnd(third)}  ${verdict}`.trimEnd(),
    );
  }
  const metrics = Object.fromEntries(
    figures.map(({ name, value }) => [
      name.toLowerCase().replaceAll(/[^a-z0-9]+/g, '_'),
      Math.round(value * 1_000) / 1_000,
    ]),
  );
  console.log(JSON.stringify({ bench, metrics }));
}

/** Nearest rank, so that the 99th of 120 is the second largest. */
export function percentile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
}
