import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventually } from '../test/harness/eventually.ts';
import { ask } from '../test/harness/http.ts';
import type { DemoMesh } from './mesh.ts';
import { expect, type Printer } from './print.ts';

/** A tightening that would break a caller is found before anybody is hurt. */
export async function replayMistake(mesh: DemoMesh, print: Printer): Promise<void> {
  print.title('a tightening with a mistake in it is stopped, and the caller is named');
  const file = policyFile(mesh, 'ledger-tight.yaml');
  const { replay, code } = await eventually(
    'the calls of web in the log, where they are counted together',
    async () => {
      const answer = await replayed(mesh, file);
      return answer.replay.totals.newlyDenied > 0 && answer;
    },
    { withinMs: 25_000, everyMs: 500 },
  );
  const [edge] = replay.edges;
  expect(code === 1, `policy replay exits with 1, not ${code}`);
  expect(
    edge?.class === 'newly_denied' && edge.source.endsWith('/ns/shop/sa/web'),
    `web is named first, not ${edge?.source}`,
  );
  print.fact('countersign policy replay', `exit ${code}: ${replay.totals.newlyDenied} calls newly denied`);
  print.fact('who would be', `${edge?.source} -> ${edge?.destination}, ${edge?.method}`);
  expect((await answerOf(mesh, 'GET')) === 200, 'web still reads the ledger');
}

/** The corrected policy on its way into force, with requests all the while. */
export async function rollOut(mesh: DemoMesh, print: Printer): Promise<void> {
  print.title('the corrected one goes through shadow and canary into force, and no request fails');
  const file = policyFile(mesh, 'ledger-read.yaml');
  const { replay, code } = await replayed(mesh, file);
  expect(code === 0, `policy replay exits with 0, not ${code}`);
  print.fact('countersign policy replay', `exit 0: ${replay.totals.newlyDenied} calls newly denied`);
  const tally = { sent: 0, failed: 0 };
  let running = true;
  const load = (async () => {
    while (running) {
      tally.sent += 1;
      if ((await answerOf(mesh, 'GET')) !== 200) tally.failed += 1;
    }
  })();
  try {
    await mesh.countersign('policy', 'shadow', '-f', file, '-m', 'the ledger is read only');
    print.fact('countersign policy shadow', `${await judged(mesh)} calls judged by both, 0 newly denied`);
    await mesh.countersign('policy', 'canary', '100');
    print.fact('countersign policy canary', `100 %: ${await judged(mesh)} calls judged, 0 newly denied`);
    const enforced = await mesh.countersign('policy', 'enforce');
    print.fact('countersign policy enforce', enforced);
  } finally {
    running = false;
    await load;
  }
  const write = await answerOf(mesh, 'POST');
  expect(write === 403, `a POST of web is denied now, not answered ${write}`);
  expect(tally.failed === 0, `none of ${tally.sent} requests fails, ${tally.failed} did`);
  print.fact('POST /accounts/1', `HTTP ${write}`);
  print.fact('requests meanwhile', `${tally.sent} sent, ${tally.failed} failed`);
}

type Replay = {
  readonly totals: { readonly newlyDenied: number };
  readonly edges: readonly {
    readonly class: string;
    readonly source: string;
    readonly destination: string;
    readonly method: string;
  }[];
};

async function replayed(mesh: DemoMesh, file: string): Promise<{ replay: Replay; code: number }> {
  const { code, stdout } = await mesh.run('policy', 'replay', '--since', '10m', '-o', 'json', file);
  return { replay: JSON.parse(stdout) as Replay, code };
}

/** Waits until the candidate has judged some calls more. @returns how many it has, none of which it would newly deny */
async function judged(mesh: DemoMesh): Promise<number> {
  const report = async () => {
    const text = await mesh.countersign('policy', 'rollout', '-o', 'json');
    return JSON.parse(text) as { judged: number; newlyDenied: number; rollout: { stage: string } };
  };
  const before = await report();
  const now = await eventually(
    'calls judged by both',
    async () => {
      const next = await report();
      return next.judged > before.judged && next;
    },
    { withinMs: 25_000, everyMs: 500 },
  );
  expect(now.newlyDenied === 0, `nothing is newly denied, ${now.newlyDenied} are`);
  expect(now.rollout.stage !== 'ended', 'the rollout is under way');
  return now.judged;
}

async function answerOf({ webToLedger }: DemoMesh, method: 'GET' | 'POST'): Promise<number> {
  const { status } = await ask({ to: webToLedger, path: '/accounts/1', method }).catch(() => ({ status: 0 }));
  return status;
}

function policyFile({ directory }: DemoMesh, name: string): string {
  const path = join(directory, name);
  writeFileSync(path, readFileSync(join(import.meta.dirname, name), 'utf8'));
  return path;
}
