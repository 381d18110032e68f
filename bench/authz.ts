// What deciding calls costs: `npm run bench -- authz [part...] [--rounds N] [--seconds N]`. `decisions`, `edits` and
// `analysis` run in this process; `checks` starts an authority and calls it over gRPC, beside a server that always says yes.
import { parseArgs } from 'node:util';
import { measureAnalysis } from './authz/analysis.ts';
import { measureChecks } from './authz/check.ts';
import { measureAllEdits, measureDecisions, type Measured } from './authz/engine.ts';
import { printReport, type ReportRow } from './report.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: 'string', default: '3' }, seconds: { type: 'string', default: '4' } },
});
const parts: Readonly<Record<string, () => Measured | Promise<Measured>>> = {
  decisions: measureDecisions,
  edits: measureAllEdits,
  analysis: measureAnalysis,
  checks: () => measureChecks(Number(values.rounds), Number(values.seconds)),
};
const unknown = positionals.filter((name) => !Object.hasOwn(parts, name));
if (unknown.length > 0) throw new Error(`parts are ${Object.keys(parts).join(', ')}`);
const rows: ReportRow[] = [];
const metrics: Record<string, number> = {};
for (const [name, measure] of Object.entries(parts)) {
  if (positionals.length > 0 && !positionals.includes(name)) continue;
  const measured = await measure();
  rows.push(...measured.rows);
  Object.assign(metrics, measured.metrics);
}
printReport('authz', rows, metrics);
