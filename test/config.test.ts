import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type ConfigSources, configOptions, loadConfig } from '../src/config.ts';
import type { ErrorCode } from '../src/errors.ts';

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'cs-config-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const nothing: ConfigSources = {
  flags: {},
  environment: { XDG_STATE_HOME: '/state' },
  file: null,
  isRoot: false,
};

function file(spec: string): string {
  const path = join(directory, 'config.yaml');
  writeFileSync(path, `apiVersion: countersign.dev/v1\nkind: Configuration\nspec:\n${spec}`);
  return path;
}

test.each(['', 'relative/state'])('an XDG directory that is %j is ignored', (path) => {
  const environment = { XDG_STATE_HOME: path, XDG_RUNTIME_DIR: path };
  const { dataDir, workloadSocket } = loadConfig({ ...nothing, environment });
  expect(dataDir).toBe(join(homedir(), '.local/state/countersign'));
  expect(workloadSocket).toBe(`${dataDir}.run/workload.sock`);
});

test('without any configuration every option has a default', () => {
  expect(loadConfig(nothing)).toMatchObject({
    trustDomain: null,
    dataDir: '/state/countersign',
    adminAddress: { host: '127.0.0.1', port: 7_443 },
    leafTtlSeconds: 3_600,
    passphraseFile: null,
  });
  expect(loadConfig({ ...nothing, isRoot: true })).toMatchObject({
    dataDir: '/var/lib/countersign',
    workloadSocket: '/run/countersign/workload.sock',
    adminSocket: '/run/countersign/admin.sock',
  });
});

test('an authority with its own data directory has its own sockets', () => {
  const config = loadConfig({ ...nothing, flags: { dataDir: '/srv/a' }, isRoot: true });
  expect(config.workloadSocket).toBe('/srv/a.run/workload.sock');
});

test('flags win over the environment, the environment over the file', () => {
  const sources = {
    ...nothing,
    file: file('  leafTtlSeconds: 100\n  rootNamespace: file\n  logLevel: info\n'),
  };
  const environment = { COUNTERSIGN_LEAF_TTL_SECONDS: '200', COUNTERSIGN_ROOT_NAMESPACE: 'environment' };
  expect(loadConfig({ ...sources, environment, flags: { leafTtlSeconds: '300' } })).toMatchObject({
    leafTtlSeconds: 300,
    rootNamespace: 'environment',
    logLevel: 'info',
  });
});

test.each<[string, string, ErrorCode, string]>([
  ['an unknown option', '  leafTTL: 5\n', 'document_field_unknown', ':4:3'],
  ['a number as text', "  leafTtlSeconds: '100'\n", 'document_field_type', ':4:19'],
  ['a lifetime that is too short', '  leafTtlSeconds: 19\n', 'config_invalid', ''],
  ['a trust domain in upper case', '  trustDomain: Shop\n', 'config_invalid', ''],
])('refuses a file with %s', (_, spec, code, place) => {
  const path = file(spec);
  let caught: unknown;
  try {
    loadConfig({ ...nothing, file: path });
  } catch (error) {
    caught = error;
  }
  expect(caught).toMatchObject({ code, fix: expect.any(String) as string });
  if (place !== '') expect(caught).toMatchObject({ place: { file: path } });
});

test.each<[string, object]>([
  ['an issuer of ID tokens without an audience', { oidcIssuer: 'https://login.test' }],
  ['an audience without an issuer', { oidcAudience: 'countersign' }],
  [
    'our own tokens as ID tokens',
    { oidcIssuer: 'https://shop.test', oidcAudience: 'countersign', jwtIssuer: 'https://shop.test' },
  ],
  ['AuthZEN in the root namespace', { rootNamespace: 'mesh', authzenNamespace: 'mesh' }],
])('refuses what does not go together: %s', (_, flags) => {
  expect(() => loadConfig({ ...nothing, flags: { ...flags } })).toThrow(
    expect.objectContaining({ code: 'config_invalid' }),
  );
});

test.each<[string, string]>([
  ['COUNTERSIGN_LEAF_TTL_SECONDS', '1e3'],
  ['COUNTERSIGN_LEAF_TTL_SECONDS', '86401'],
  ['COUNTERSIGN_LEAF_TTL_SECONDS', ''],
  ['COUNTERSIGN_ADMIN_ADDRESS', '7443'],
  ['COUNTERSIGN_ADMIN_ADDRESS', '127.0.0.1:70000'],
  ['COUNTERSIGN_ADMIN_UIDS', '1,x'],
  ['COUNTERSIGN_ADMIN_UIDS', '-1'],
  ['COUNTERSIGN_ROOT_NAMESPACE', 'a/b'],
  ['COUNTERSIGN_LOG_LEVEL', 'verbose'],
  ['COUNTERSIGN_DATA_DIR', ''],
  ['COUNTERSIGN_TRUST_DOMAIN', 'spiffe://shop.test'],
  ['COUNTERSIGN_SHUTDOWN_GRACE_SECONDS', '301'],
  ['COUNTERSIGN_ATTEST_KUBELET', ''],
  ['COUNTERSIGN_ATTEST_KUBELET', '127.0.0.1:10250'],
  ['COUNTERSIGN_ATTEST_KUBELET', 'https://127.0.0.1'],
  ['COUNTERSIGN_ATTEST_KUBELET', 'https://127.0.0.1:10250/pods'],
  ['COUNTERSIGN_ATTEST_KUBELET', 'https://a:b@127.0.0.1:10250'],
  ['COUNTERSIGN_ATTEST_KUBELET', 'https://127.0.0.1:70000'],
  ['COUNTERSIGN_ATTEST_KUBELET', 'http://10.0.0.1:10255'],
  ['COUNTERSIGN_ATTEST_KUBELET', 'http://localhost:10255'],
  ['COUNTERSIGN_ATTEST_KUBELET', 'http://127.0.0.1.test:10255'],
  ['COUNTERSIGN_ATTEST_DOCKER', ''],
])('refuses %s=%s and names it', (name, value) => {
  expect(() => loadConfig({ ...nothing, environment: { [name]: value } })).toThrow(
    expect.objectContaining({
      code: 'config_invalid',
      message: expect.stringContaining(name) as string,
    }) as Error,
  );
});

test.each([
  ['off', null],
  ['https://node-1:10250', 'https://node-1:10250/'],
  ['https://[::1]:443', 'https://[::1]/'],
  ['http://127.0.0.1:10255', 'http://127.0.0.1:10255/'],
])('the kubelet at %s', (value, url) => {
  const environment = { COUNTERSIGN_ATTEST_KUBELET: value, COUNTERSIGN_ATTEST_DOCKER: '/run/docker.sock' };
  const { attestKubelet, attestDocker } = loadConfig({ ...nothing, environment });
  expect(attestKubelet?.href ?? null).toBe(url);
  expect(attestDocker).toBe('/run/docker.sock');
});

test('a missing file is named', () => {
  expect(() => loadConfig({ ...nothing, file: join(directory, 'none.yaml') })).toThrow(
    expect.objectContaining({ code: 'config_invalid' }) as Error,
  );
});

test('every option has an environment variable of its own', () => {
  const names = configOptions(nothing).map(({ env }) => env);
  expect(new Set(names).size).toBe(names.length);
  for (const name of names) expect(name).toMatch(/^COUNTERSIGN_[A-Z_]+$/);
});

test('docs/configuration.md has every option with its variable', () => {
  const rows = readFileSync('docs/configuration.md', 'utf8').split('\n');
  for (const { name, env } of configOptions(nothing)) {
    expect(
      rows.some((row) => row.startsWith(`| \`${name}\``) && row.includes(`\`${env}\``)),
      name,
    ).toBe(true);
  }
});
