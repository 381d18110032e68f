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
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 1 ? 2 : 3;
  return value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
