import { execFileSync, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';

const scope = createScope();
afterAll(() => scope.close());

const main = join(import.meta.dirname, '../../src/cli/main.ts');

test.each(['yaml', 'json'])(
  'what `countersign envoy bootstrap` prints as %s is a bootstrap to Envoy',
  (format) => {
    const directory = makeTempDir(scope);
    const args = ['--workload', 'spiffe://mesh.test/ns/shop/sa/web', '--inbound', '127.0.0.1:15443'];
    const more = [
      '--app',
      '127.0.0.1:8080',
      '--outbound-tcp',
      '127.0.0.1:1=spiffe://mesh.test/ns/a/sa/b@[::1]:2',
    ];
    const output = format === 'json' ? ['-o', 'json'] : [];
    const printed = execFileSync(
      process.execPath,
      [main, 'envoy', 'bootstrap', ...args, ...more, '--data-dir', directory, ...output],
      { encoding: 'utf8' },
    );
    const file = join(directory, `bootstrap.${format}`);
    writeFileSync(file, printed);
    const envoy = execFileSync('bash', ['tool/envoy', '--where'], { encoding: 'utf8' }).trim();
    const validate = [
      '--mode',
      'validate',
      '-c',
      file,
      '--use-dynamic-base-id',
      '--concurrency',
      '1',
      '-l',
      'warn',
    ];
    const run = spawnSync(envoy, validate, { encoding: 'utf8', timeout: 50_000 });
    expect(run.stdout + run.stderr).toMatch(/ OK\n/);
    expect(printed).toContain(join(`${directory}.run`, 'workload.sock'));
  },
);
