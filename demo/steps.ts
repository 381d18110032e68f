import { eventually } from '../test/harness/eventually.ts';
import { ask } from '../test/harness/http.ts';
import type { Sidecar } from '../test/harness/mesh.ts';
import { replayMistake, rollOut } from './change.ts';
import { tryHandshake } from './handshake.ts';
import type { DemoMesh } from './mesh.ts';
import { expect, type Printer } from './print.ts';

/** Shows one thing and throws when it is not so. */
export type Step = (mesh: DemoMesh, print: Printer) => Promise<void>;

/** The story, in order: each step stands on the ones before it. */
export const steps: readonly Step[] = [
  showAuthority,
  registerServices,
  showCertificates,
  callOrders,
  callAssets,
  callLedger,
  turnRogueAway,
  editPolicy,
  rotateUnderLoad,
  replayMistake,
  rollOut,
  askTheLog,
];

async function showAuthority({ countersign }: DemoMesh, print: Printer): Promise<void> {
  print.title('an authority, in one process');
  const status = JSON.parse(await countersign('status', '-o', 'json')) as {
    trustDomain: string;
    ready: boolean;
  };
  expect(status.ready, 'the authority is ready');
  print.fact('countersign status', `trust domain ${status.trustDomain}, ready`);
}

async function registerServices({ countersign, meshFile }: DemoMesh, print: Printer): Promise<void> {
  print.title('register the services and say who may call whom');
  print.fact('countersign apply -f', await countersign('apply', '-f', meshFile));
}

async function showCertificates(mesh: DemoMesh, print: Printer): Promise<void> {
  print.title('certificates arrive over SDS, and every one of them is in the log');
  for (const sidecar of [mesh.web, mesh.orders, mesh.ledger]) {
    await sidecar.live(15_000);
    const serial = await servedSerial(sidecar);
    const logged = await issuances(mesh);
    expect(logged.includes(serial), `serial ${serial} of ${sidecar.name} is in the log`);
    print.fact(`${sidecar.name} /certs`, `serial ${serial}`);
  }
}

async function callOrders({ webToOrders }: DemoMesh, print: Printer): Promise<void> {
  print.title('web -> orders is allowed');
  const answer = await ask({ to: webToOrders, path: '/orders/1' });
  expect(answer.status === 200, `GET /orders/1 answers 200, not ${answer.status} ${answer.body}`);
  print.fact('GET /orders/1', `HTTP ${answer.status} from ${answer.body.trim()}`);
}

async function callAssets(mesh: DemoMesh, print: Printer): Promise<void> {
  print.title('an NGINX speaks mTLS with files that are kept for it');
  const { assets, web, webToAssets } = mesh;
  await assets.serve();
  const written = / written {2}(\S+) {2}serial ([0-9a-f]+)/.exec(assets.agent.output());
  expect(written?.[1] === assets.id, `the files are those of ${assets.id}, not of ${written?.[1]}`);
  print.fact('countersign agent files', `wrote serial ${written?.[2]}`);
  const answer = await eventually('web -> assets to be answered', async () => {
    const last = await ask({ to: webToAssets, path: '/' });
    return last.status === 200 && last;
  });
  const caller = await servedSerial(web);
  expect(
    answer.body.trim().toLowerCase() === `shop/assets to ${caller}`,
    `NGINX saw the certificate of web, ${caller}: ${answer.body}`,
  );
  print.fact('GET / of assets', `HTTP ${answer.status} from ${answer.body.trim()}, the certificate of web`);
  const refusal = await assets.turnAway();
  expect(refusal.startsWith('400 '), `NGINX turns away who shows no certificate, it answers ${refusal}`);
  print.fact('without a certificate', `refused: ${refusal}`);
}

async function callLedger(mesh: DemoMesh, print: Printer): Promise<void> {
  print.title('web -> ledger is denied, and the log says why');
  const answer = await ask({ to: mesh.webToLedger, path: '/accounts/1' });
  expect(answer.status === 403, `GET /accounts/1 answers 403, not ${answer.status} ${answer.body}`);
  print.fact('GET /accounts/1', `HTTP ${answer.status} ${answer.body.trim()}`);
  const [denial] = await eventually('the denial in the log', async () => {
    const rows = await auditRows(mesh, 'decision', '--verdict', 'deny');
    return rows.length > 0 && rows;
  });
  print.fact('reason', String(denial?.['why']));
}

async function turnRogueAway(mesh: DemoMesh, print: Printer): Promise<void> {
  print.title('a rogue without an entry gets nothing');
  const refusals = await eventually('the refusal in the log', async () => {
    const rows = await auditRows(mesh, 'refusal');
    const ofRogue = rows.filter((row) => JSON.stringify(row).includes(mesh.rogue.binary));
    return ofRogue.length > 0 && ofRogue;
  });
  expect(!(await mesh.rogue.isLive()), 'the rogue opens no listener');
  expect((await mesh.rogue.certificates()).length === 0, 'the rogue holds no certificate');
  print.fact('SDS', `refused: ${String(refusals[0]?.['message'])}`);
  for (const attempt of ['no certificate', 'a certificate of its own CA'] as const) {
    const alert = await tryHandshake(mesh, attempt);
    print.fact(`TLS with ${attempt === 'no certificate' ? 'none' : 'its own CA'}`, `refused: ${alert}`);
  }
}

async function editPolicy(mesh: DemoMesh, print: Printer): Promise<void> {
  print.title('a policy edit takes effect live');
  await mesh.countersign('apply', '-f', mesh.editFile);
  const appliedAt = Date.now();
  const answer = await eventually(
    'web -> ledger to be allowed',
    async () => {
      const last = await ask({ to: mesh.webToLedger, path: '/accounts/1' });
      return last.status === 200 && last;
    },
    { withinMs: 5_000, everyMs: 5 },
  );
  print.fact(
    'GET /accounts/1',
    `HTTP ${answer.status} from ${answer.body.trim()}, ${Date.now() - appliedAt} ms later`,
  );
}

async function rotateUnderLoad(mesh: DemoMesh, print: Printer): Promise<void> {
  print.title('certificates of 20 s rotate under load, and no request fails');
  const { web, orders, assets } = mesh;
  const servers = [
    ...[web, orders].map((sidecar) => ({ name: sidecar.name, serial: () => servedSerial(sidecar) })),
    { name: 'shop/assets, NGINX', serial: assets.servedSerial },
  ];
  const serials = (): Promise<string[]> => Promise.all(servers.map(({ serial }) => serial()));
  const before = await serials();
  const tally = { sent: 0, failed: 0 };
  const rotated = eventually(
    'every certificate to change',
    async () => {
      const now = await serials();
      return now.every((serial, index) => serial !== before[index]) && now;
    },
    { withinMs: 30_000, everyMs: 200 },
  );
  let running = true;
  // A new connection for each request, so that each one shakes hands with the certificate of its moment.
  const load = Promise.all([load1(mesh.webToOrders, '/orders/1'), load1(mesh.webToAssets, '/')]);
  const after = await rotated.finally(() => {
    running = false;
  });
  await load;
  for (const [index, { name }] of servers.entries()) {
    print.fact(name, `${before[index]?.slice(0, 12)}… -> ${after[index]?.slice(0, 12)}…`);
  }
  expect(tally.failed === 0, `none of ${tally.sent} requests fails, ${tally.failed} did`);
  print.fact('requests meanwhile', `${tally.sent} sent, ${tally.failed} failed`);

  async function load1(to: number, path: string): Promise<void> {
    while (running) {
      const { status } = await ask({ to, path }).catch(() => ({ status: 0 }));
      tally.sent += 1;
      if (status !== 200) tally.failed += 1;
    }
  }
}

async function askTheLog(mesh: DemoMesh, print: Printer): Promise<void> {
  print.title('the log answers for all of it');
  for (const sidecar of [mesh.web, mesh.orders, mesh.ledger]) {
    // Read first: the record is written before the certificate exists, so whatever is served is in the log by now.
    const served = await servedSerial(sidecar);
    const mine = await auditRows(mesh, 'issuance', '--source', sidecar.id);
    expect(
      mine.some((row) => row['serial'] === served),
      `the log holds the serial that ${sidecar.name} serves`,
    );
    print.fact(`issued to ${sidecar.name}`, `${mine.length} certificates, the one in use among them`);
  }
  const nginx = await mesh.assets.servedSerial();
  const issued = await auditRows(mesh, 'issuance', '--source', mesh.assets.id);
  expect(
    issued.some((row) => row['serial'] === nginx),
    'the log holds the serial that NGINX serves',
  );
  print.fact('issued to shop/assets', `${issued.length} certificates, the one in use among them`);
  const denials = await mesh.countersign(
    'audit',
    'list',
    '--since',
    '10m',
    '--type',
    'decision',
    '--verdict',
    'deny',
  );
  expect(denials.includes('ns/shop/sa/web') && denials.includes('ns/pay/sa/ledger'), 'the denial is listed');
  print.fact('countersign audit list', `--type decision --verdict deny\n${denials}`);
}

/** The serial of the certificate an Envoy serves, in the log's form: lower-case hex of 20 octets. */
async function servedSerial(sidecar: Sidecar): Promise<string> {
  const serials = (await sidecar.certificates()).filter(({ uris }) => uris.includes(sidecar.id));
  const [newest] = serials.sort((a, b) => b.validUntil.getTime() - a.validUntil.getTime());
  if (newest === undefined) throw new Error(`${sidecar.name} holds no certificate of ${sidecar.id}`);
  return newest.serial.toLowerCase();
}

async function issuances(mesh: DemoMesh): Promise<string[]> {
  return (await auditRows(mesh, 'issuance')).map((row) => String(row['serial']));
}

async function auditRows(
  { countersign }: DemoMesh,
  type: string,
  ...filters: readonly string[]
): Promise<Record<string, unknown>[]> {
  const text = await countersign(
    'audit',
    'list',
    '--type',
    type,
    ...filters,
    '--limit',
    '1000',
    '-o',
    'json',
  );
  const page = JSON.parse(text) as { items: { event: Record<string, unknown> }[] };
  return page.items.map(({ event }) => event);
}
