import { parseArgs } from 'node:util';
import { createScope } from '../test/harness/scope.ts';
import { buildMesh, type DemoMesh } from './mesh.ts';
import { type Printer, createPrinter } from './print.ts';
import { steps } from './steps.ts';

// The demo is a program that checks what it shows: every line is printed after the real answer was compared with what
// it should be, and the first one that differs ends it with exit code 1.

const { values } = parseArgs({
  options: {
    keep: { type: 'boolean', default: false },
    // Takes one entry or policy away first, to see the demo fail: `--without policy:orders`.
    without: { type: 'string', multiple: true, default: [] },
  },
});

process.exitCode = await run();

async function run(): Promise<number> {
  const print = createPrinter();
  const scope = createScope();
  const interrupted = new Promise<'interrupted'>((resolve) => {
    // Not once: npm passes a Ctrl-C on that the terminal has sent already, and the second must not cut the cleaning up.
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => resolve('interrupted'));
  });
  try {
    const outcome = await Promise.race([tell(print), interrupted]);
    if (outcome === 'interrupted') return 130;
    if (values.keep) {
      print.note(keepNotes(outcome));
      await interrupted;
    }
    return 0;
  } catch (error) {
    print.failed(error instanceof Error ? error.message : String(error));
    return 1;
  } finally {
    await scope.close();
  }

  async function tell(to: Printer): Promise<DemoMesh> {
    const startedAt = Date.now();
    const mesh = await buildMesh(scope, { without: values.without });
    for (const step of steps) await step(mesh, to);
    to.note(`all of it checked, in ${Math.round((Date.now() - startedAt) / 1_000)} s`);
    return mesh;
  }
}

function keepNotes(mesh: DemoMesh): string {
  return [
    'left running; Ctrl-C ends it and cleans up. In another terminal:',
    '',
    `  export COUNTERSIGN_ADMIN_SOCKET=${mesh.authority.adminSocket}`,
    '  bin/countersign status',
    '  bin/countersign entry list',
    '  bin/countersign audit list --type decision --verdict deny',
    `  curl http://127.0.0.1:${mesh.webToOrders}/orders/1      # as shop/web, to shop/orders`,
    `  curl http://127.0.0.1:${mesh.webToLedger}/accounts/1    # as shop/web, to pay/ledger`,
    `  curl http://127.0.0.1:${mesh.webToAssets}/              # as shop/web, to the NGINX of shop/assets`,
  ].join('\n');
}
