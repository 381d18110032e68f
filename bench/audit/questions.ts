import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseCountQuery, type CountQueryFields } from '../../src/audit/count-question.ts';
import { type AuditQueryFields, parseAuditQuery } from '../../src/audit/question.ts';
import { readAuditCounts } from '../../src/store/audit-count.ts';
import { readAuditPage } from '../../src/store/audit-query.ts';
import { type Database, openForReading, openForWriting } from '../../src/store/database.ts';
import { createBatchWriter } from '../../src/store/writer.ts';
import { printReport, type ReportRow } from '../report.ts';
import { buildLog, lastMs, service } from './question-log.ts';

/** A question of the bench: `n` varies what it asks for. It returns the time of each step, ms. */
export type BenchQuestion = {
  readonly name: string;
  readonly ask: (db: Database, n: number) => readonly number[];
  /** Whether it must count or look at everything. */
  readonly isBroad?: true;
};

const now = new Date(lastMs);

/** A page of a list, however many steps it takes. */
export function list(name: string, fields: (n: number) => AuditQueryFields, isBroad?: true): BenchQuestion {
  const ask = (db: Database, n: number): readonly number[] => {
    const query = parseAuditQuery(fields(n), now);
    const steps: number[] = [];
    let rows = 0;
    for (let cursor = query.cursor; ;) {
      const started = performance.now();
      const page = readAuditPage(db, { ...query, limit: query.limit - rows, cursor });
      steps.push(performance.now() - started);
      rows += page.rows.length;
      cursor = page.next;
      if (cursor === null || rows >= query.limit) return steps;
    }
  };
  return { name, ask, ...(isBroad === undefined ? {} : { isBroad }) };
}

/** All counts of a question. */
export function count(name: string, fields: (n: number) => CountQueryFields, isBroad?: true): BenchQuestion {
  const ask = (db: Database, n: number): readonly number[] => {
    const query = parseCountQuery(fields(n), now);
    const steps: number[] = [];
    for (let { cursor } = query; ;) {
      const started = performance.now();
      const page = readAuditCounts(db, { ...query, cursor });
      steps.push(performance.now() - started);
      cursor = page.next;
      if (cursor === null) return steps;
    }
  };
  return { name, ask, ...(isBroad === undefined ? {} : { isBroad }) };
}

const questions: readonly BenchQuestion[] = [
  list('the latest records', () => ({})),
  list('denials of a day', (n) => ({ verdict: 'deny', since: `${1 + (n % 30)}d` })),
  list('what a busy service was issued', (n) => ({ types: ['issuance'], source: service(n % 5) })),
  list('what a quiet service was issued', (n) => ({ types: ['issuance'], source: service(150 + (n % 40)) })),
  list('denials of a service by another', (n) => ({
    verdict: 'deny',
    source: service(100 + n),
    destination: service(50 + n),
  })),
  list('all about a certificate', (n) => ({ serial: (n * 4_096 + 3).toString(16).padStart(32, '0') })),
  list('changes of a policy', (n) => ({ where: [`policy=team-${n % 20}/service-${n}`] })),
  list('what a person did', (n) => ({ where: [`actor.subject=person-${n % 40}`], since: '7d' })),
  list('certificates under a key', (n) => ({ where: [`issuerKeyId=${`${n % 10}`.padStart(40, '0')}`] })),
  list('changes that name a ticket', (n) => ({ text: `CHG-${n}`, types: ['policy_change'] })),
  list('words anywhere but in calls', () => ({
    text: 'host taken over',
    types: ['ban', 'refusal', 'admin'],
  })),
  count('counts by verdict, all', () => ({ by: ['verdict'] }), true),
  count('who calls whom, all', () => ({ by: ['source', 'destination', 'verdict'] }), true),
  count('who calls whom, 7 days', () => ({ by: ['source', 'destination', 'verdict'], since: '7d' }), true),
  count('denials by the day', () => ({ by: ['day'], verdict: 'deny' }), true),
  count('rules that allowed, 30 days', () => ({ by: ['rule'], verdict: 'allow', since: '719h' }), true),
  count('what people did', () => ({ by: ['actor.subject', 'action'] }), true),
];
/** Such a one has to look at all that it may: they are told, and have no bound. */
const walks: readonly BenchQuestion[] = [
  list('words in calls, none', () => ({ text: 'no such words', types: ['decision'] })),
  count('calls by path pattern, a day', () => ({
    by: ['pathPattern'],
    since: '1d',
    types: ['allowed_calls'],
  })),
];

/** Asks a log of many events, cold and warm: `npm run bench -- audit questions [--events 10000000]`. */
export function measureQuestions(args: readonly string[], more: readonly BenchQuestion[] = []): void {
  const events = numberOf(args, '--events', 1_000_000);
  const shape = { events, seed: numberOf(args, '--seed', 7), services: 200 };
  const kept = args[args.indexOf('--dir') + 1];
  const dir =
    args.includes('--dir') && kept !== undefined
      ? kept
      : mkdtempSync(join(tmpdir(), 'countersign-bench-questions-'));
  try {
    const rows: ReportRow[] = [];
    const metrics: Record<string, number> = {};
    const tell = (name: string, value: number, unit: string, metric: string): void => {
      rows.push({ name, value, unit });
      metrics[metric] = Math.round(value * 1_000) / 1_000;
    };
    tell('events; seed 7; 200 services, half of all about 12% of them', events, '', 'events');
    const dataDir = join(dir, 'data');
    if (statSync(dataDir, { throwIfNoEntry: false }) === undefined) {
      const built = buildLog(dataDir, shape);
      tell('written', built.perSecond, '/s', 'written_per_second');
      tell('of one core, by CPU time', built.perCpuSecond, '/s', 'written_per_cpu_second');
    }
    tell(
      'size of the file, an event',
      statSync(join(dataDir, 'countersign.db')).size / events,
      'bytes',
      'bytes_per_event',
    );
    const all = [...questions, ...more];
    const cold = all.map(({ ask }) => timedCold(dataDir, ask));
    const db = openForReading(dataDir);
    let longestStep = 0;
    let slowest = { name: '', ms: 0 };
    const measure = ({ name, ask, isBroad }: BenchQuestion, repeats: number, first: number | null): void => {
      const times: number[] = [];
      for (let n = 0; n < repeats; n++) {
        const steps = ask(db, n);
        longestStep = Math.max(longestStep, ...steps);
        times.push(steps.reduce((sum, ms) => sum + ms, 0));
      }
      times.sort((a, b) => a - b);
      const [p50, p95] = [0.5, 0.95].map((part) => times[Math.floor((times.length - 1) * part)] ?? 0);
      if (isBroad !== true && (p95 ?? 0) > slowest.ms) slowest = { name, ms: p95 ?? 0 };
      const figures = [`p50 ${ms(p50)}`, `p95 ${ms(p95)}`, ...(first === null ? [] : [`cold ${ms(first)}`])];
      rows.push({
        name: `${name}${isBroad === true ? ' (everything)' : ''}`,
        value: figures.join('  '),
        unit: 'ms',
      });
      metrics[`${name.replaceAll(/[^a-z0-9]+/g, '_')}_p95_ms`] = p95 ?? 0;
    };
    for (const [at, question] of all.entries())
      measure(question, question.isBroad === true ? 5 : 40, cold[at] ?? null);
    const asked = slowest;
    for (const question of walks) measure({ ...question, isBroad: true }, 1, null);
    rows.push({ name: 'the slowest that need not look at everything', value: asked.name, unit: '' });
    tell('its p95', asked.ms, 'ms', 'slowest_p95_ms');
    tell('the longest step, for which others wait', longestStep, 'ms', 'longest_step_ms');
    tell('memory, resident', process.memoryUsage().rss / 1_048_576, 'MiB', 'rss_mib');
    db.close();
    if (args.includes('--derive'))
      tell('making facts and counts anew', timeDeriving(dataDir) / 1_000, 's', 'derive_seconds');
    printReport('audit questions', rows, metrics);
  } finally {
    if (!args.includes('--dir')) rmSync(dir, { recursive: true, force: true });
  }
}

/** The first time, with nothing of the file in the process. What the machine has of it in memory stays there. */
function timedCold(dataDir: string, ask: BenchQuestion['ask']): number {
  const db = openForReading(dataDir);
  const started = performance.now();
  ask(db, 0);
  const took = performance.now() - started;
  db.close();
  return took;
}

/** As a start after an earlier release does. */
function timeDeriving(dataDir: string): number {
  const db = openForWriting(dataDir, now);
  db.exec(
    `DELETE FROM audit_facts; DELETE FROM audit_words; DELETE FROM audit_rollup; DELETE FROM audit_rollup_keys;
     UPDATE audit_derived SET size = 0`,
  );
  const started = performance.now();
  createBatchWriter(db);
  const took = performance.now() - started;
  db.close();
  return took;
}

function numberOf(args: readonly string[], name: string, otherwise: number): number {
  const at = args.indexOf(name);
  return at === -1 ? otherwise : Number(args[at + 1]);
}

function ms(value: number | undefined): string {
  return (value ?? 0).toFixed(value !== undefined && value < 10 ? 2 : 0);
}
